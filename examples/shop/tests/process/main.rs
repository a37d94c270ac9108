//! The shop as a process, checked by its responses and by its database.
//!
//! - It sells, and executes each order once.
//! - A worker that panics is seen and restarted, and the other orders are executed.
//! - A broken configuration is named by file and line, at the start and later. Later, the shop
//!   continues with the last one.
//! - Flags and certificate are replaced without a restart of anything.
//! - While the database is away, the shop says so. It recovers with the file.
//! - While the payment provider is away, orders are accepted, and executed later.
//! - On SIGTERM under load, no accepted request and no order is lost. A second SIGTERM ends it.
#![cfg(unix)]

mod provider;
mod shop;

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;

use crate::{
    provider::Provider,
    shop::{DEADLINE, Shop},
};

/// Waits until the number of orders that are executed is this one.
async fn until_executed(shop: &Shop, executed: u64) {
    shop.until("/orders", |answer| answer.json()["executed"] == executed).await;
}

#[tokio::test]
async fn it_sells_and_executes_each_order_once() {
    let provider = Provider::start().await;
    let shop = Shop::start(&provider.config()).await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(shop.get("/livez").await.status, StatusCode::OK);

    let tea = shop.get("/products/tea").await;
    assert_eq!((tea.status, tea.json()["cents"].as_u64()), (StatusCode::OK, Some(450)));
    assert_eq!(shop.get("/products/gold").await.status, StatusCode::NOT_FOUND);
    assert_eq!(shop.order("gold", 1).await.status, StatusCode::NOT_FOUND);
    assert!(shop.post("/orders", "{").await.status.is_client_error());

    for amount in 1..=20 {
        let answer = shop.order("tea", amount).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        assert_eq!(answer.json()["cents"], 450 * amount);
    }
    until_executed(&shop, 20).await;
    assert_eq!(provider.paid(), (1..=20).map(|n| (n, 450 * n as u64)).collect());
}

#[tokio::test]
async fn a_worker_that_panics_is_restarted_and_executes_the_other_orders() {
    let shop = Shop::start("connections = 2\n").await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(shop.order("tea", 0).await.status, StatusCode::ACCEPTED);
    for _ in 0..5 {
        assert_eq!(shop.order("cup", 1).await.status, StatusCode::ACCEPTED);
    }
    until_executed(&shop, 5).await;
    let worker = shop.status("worker").await;
    assert_eq!(worker["failed"], 3, "an order is tried three times: {worker}");
    assert!(shop.log().contains("divide by zero"), "{}", shop.log());
    // Nothing else has failed.
    for service in ["pool", "catalog", "http", "config"] {
        assert_eq!(shop.status(service).await["failed"], 0, "{service}");
    }
}

#[tokio::test]
async fn a_broken_configuration_is_named_by_file_and_line() {
    let shop = Shop::start("# broken from the start\nconnections = \"many\"\n").await;
    let broken = shop.until("/readyz", |answer| answer.text.contains("shop.toml:2")).await;
    assert_eq!(broken.status, StatusCode::SERVICE_UNAVAILABLE);
    let refused = shop.get("/products/tea").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text.contains("shop.toml:2"), "{}", refused.text);

    shop.write("shop.toml", "connections = 2\n");
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    let pool = shop.status("pool").await;

    // Broken later: what works continues.
    shop.write("shop.toml", "connections = 2\n\n\ncolour = \"blue\"\n");
    let degraded = shop.until("/readyz", |answer| answer.text.contains("shop.toml:4")).await;
    assert_eq!(degraded.status, StatusCode::OK, "{}", degraded.text);
    assert!(degraded.text.contains("colour"), "{}", degraded.text);
    assert_eq!(shop.get("/products/tea").await.status, StatusCode::OK);
    assert_eq!(shop.status("pool").await["generation"], pool["generation"]);

    shop.write("shop.toml", "connections = 3\n");
    shop.until("/services", |answer| {
        let pool_now = answer.service("pool");
        pool_now["phase"] == "ready" && pool_now["generation"] != pool["generation"]
    })
    .await;
    shop.until("/readyz", |answer| {
        answer.status == StatusCode::OK && !answer.text.contains("shop.toml")
    })
    .await;
}

#[tokio::test]
async fn flags_and_certificate_are_replaced_and_nothing_is_restarted() {
    let shop = Shop::start("connections = 2\n").await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    let before = shop.certificate();
    assert!(shop.trusting(&before).get("/livez").await.is_some());

    shop.write("flags.toml", "sale = true\n");
    shop.until("/products/tea", |answer| answer.json()["cents"] == 405).await;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
    let renewed = made.cert.pem();
    shop.write("tls.pem", &(renewed.clone() + &made.signing_key.serialize_pem()));
    let start = Instant::now();
    while shop.trusting(&renewed).get("/livez").await.is_none() {
        assert!(start.elapsed() < DEADLINE, "the new certificate is not used");
    }
    assert!(shop.trusting(&before).get("/livez").await.is_none());
    // A broken one is not used.
    shop.write("tls.pem", "not a certificate");
    shop.until("/readyz", |answer| answer.text.contains("tls.pem")).await;
    assert!(shop.trusting(&renewed).get("/livez").await.is_some());
    // Without the flags, the shop sells without a sale.
    for service in ["config", "flags", "certificate", "pool", "catalog", "worker", "http"] {
        assert_eq!(shop.status(service).await["generation"], 0, "{service}");
    }
}

#[tokio::test]
async fn the_shop_recovers_when_its_database_is_back() {
    let shop = Shop::start("connections = 2\n").await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(shop.order("tea", 1).await.status, StatusCode::ACCEPTED);
    until_executed(&shop, 1).await;

    let (file, away) = (shop.file("shop.sqlite"), shop.file("away.sqlite"));
    fs::rename(&file, &away).unwrap();
    let missing =
        shop.until("/readyz", |answer| answer.status == StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(missing.text.contains("shop.sqlite"), "{}", missing.text);
    let refused = shop.until("/products/tea", |answer| answer.status != StatusCode::OK).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.get("/livez").await.status, StatusCode::OK, "a restart would not help");

    fs::rename(&away, &file).unwrap();
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(shop.order("tea", 1).await.status, StatusCode::ACCEPTED);
    until_executed(&shop, 2).await;
}

#[tokio::test]
async fn orders_wait_for_the_payment_provider() {
    let provider = Provider::start().await;
    let config = provider.config();
    let shop = Shop::start(&config).await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(shop.order("tea", 1).await.status, StatusCode::ACCEPTED);
    until_executed(&shop, 1).await;

    let stopped = provider.stop().await;
    for _ in 0..10 {
        assert_eq!(shop.order("cup", 1).await.status, StatusCode::ACCEPTED);
    }
    let degraded = shop.until("/readyz", |answer| answer.text.contains("payments")).await;
    assert_eq!(degraded.status, StatusCode::OK, "the shop sells: {}", degraded.text);
    assert_eq!(shop.get("/orders").await.json()["executed"], 1);

    let provider = stopped.start_again().await;
    until_executed(&shop, 11).await;
    assert_eq!(provider.paid().len(), 11);
    assert_eq!(shop.status("pool").await["failed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_request_and_no_order_is_lost_at_the_end() {
    let provider = Provider::start().await;
    let mut shop = Shop::start(&provider.config()).await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    let is_ending = Arc::new(AtomicBool::new(false));
    let customers: Vec<_> = (0..4)
        .map(|_| {
            let (shop, is_ending) = (shop.customer(), Arc::clone(&is_ending));
            tokio::spawn(async move {
                let mut orders = Vec::new();
                // A connection of its own for each order. The first one that is not taken is the
                // end.
                while let Some(answer) = shop.order_once("tea", 1).await {
                    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
                    orders.push(answer.json()["order"].as_i64().unwrap());
                }
                assert!(is_ending.load(Ordering::SeqCst), "a request was refused before the end");
                orders
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_ending.store(true, Ordering::SeqCst);
    shop.signal("TERM");
    // A load balancer sees it before connections are refused.
    let leaving = shop.customer().once("/readyz").await.expect("it still answers");
    assert_eq!(leaving.status, StatusCode::SERVICE_UNAVAILABLE, "{}", leaving.text);
    assert!(shop.wait_for_end().await.success(), "{}", shop.log());
    let mut accepted = BTreeSet::new();
    for customer in customers {
        accepted.extend(customer.await.unwrap());
    }
    assert!(accepted.len() >= 20, "only {} orders", accepted.len());
    // A request that has no response has left no order, and each order is executed and paid.
    let (open, executed) = shop.orders_in_database();
    assert_eq!(open, Vec::<i64>::new(), "orders that were accepted are not executed");
    assert_eq!(executed.into_iter().collect::<BTreeSet<_>>(), accepted);
    assert!(provider.paid().into_keys().eq(accepted));
    assert!(!shop.log().contains("panicked"), "{}", shop.log());
}

#[tokio::test]
async fn a_second_signal_ends_the_shop_at_once() {
    let provider = Provider::start().await;
    let mut shop = Shop::start(&provider.config()).await;
    shop.until("/readyz", |answer| answer.status == StatusCode::OK).await;
    // The worker waits for the provider, and would be waited for.
    provider.hang();
    assert_eq!(shop.order("tea", 1).await.status, StatusCode::ACCEPTED);
    provider.until_asked().await;
    shop.signal("TERM");
    shop.until_refused().await;
    let second = Instant::now();
    shop.signal("TERM");
    let status = shop.wait_for_end().await;
    assert!(!status.success(), "{status}");
    assert!(second.elapsed() < DEADLINE);
}
