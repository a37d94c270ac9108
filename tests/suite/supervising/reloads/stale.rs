//! A service whose reload was refused is stale.
//!
//! - Its status, its record and the readiness say so, why, and for how long.
//! - Until a later reload of which it is a member succeeds, or its generation ends. A later refusal
//!   changes why, and not since when.
//! - An observer that is added receives the refusals that its listing does not show.

use super::*;
use crate::supervising::runtime::ms;
use mainstay::{Event, EventKind, Listing, Observer, Registry, ServiceRecord, supervise::Stale};

fn stale(runtime: &TestRuntime, of: &Supervised) -> Option<Stale> {
    runtime.supervisor_status(of.0).stale
}

fn refuse(runtime: &mut TestRuntime, of: &Supervised) {
    assert!(reload(runtime, of).take().is_err());
}

#[test]
fn the_status_and_the_readiness_say_that_a_service_is_stale_and_why() {
    let (mut runtime, [config, pool, _]) = super::chain();
    runtime.registry.startup_complete();
    assert_eq!(runtime.registry.readiness().to_string(), "ready");
    pool.1.fails("connection refused");
    refuse(&mut runtime, &config);
    let line = |runtime: &TestRuntime| runtime.registry.status(config.0).unwrap().to_string();
    assert_eq!(line(&runtime), "config: ready, stale: reload refused by pool: connection refused");
    runtime.advance(ms(12_000));
    let text = "config: ready, stale: reload refused by pool: connection refused (for 12 s)";
    assert_eq!(line(&runtime), text);
    let status = runtime.registry.status(config.0).unwrap();
    let record = ServiceRecord::from(&status);
    assert_eq!(record.to_string(), text);
    assert_eq!(record.supervisor.unwrap().stale, stale(&runtime, &config));

    let readiness = runtime.registry.readiness();
    assert!(readiness.live && readiness.ready && readiness.degraded);
    let text = "degraded: config: stale: reload refused by pool: connection refused (for 12 s)";
    assert_eq!(readiness.to_string(), text);
    assert_eq!(readiness.problems.len(), 1);
    assert_eq!(readiness.problems[0].stale, stale(&runtime, &config));

    // Another reason, since the same time.
    let since = stale(&runtime, &config).unwrap().since;
    pool.1.fails("no route");
    refuse(&mut runtime, &config);
    let now = stale(&runtime, &config).unwrap();
    assert_eq!((&*now.why, now.since), ("reload refused by pool: no route", since));
    assert_eq!(now.lasts, Some(ms(12_000)));
}

#[test]
fn a_later_reload_or_a_new_generation_ends_it() {
    let (mut runtime, [config, pool, server]) = super::chain();
    server.1.fails("no memory");
    refuse(&mut runtime, &pool);
    assert_eq!(stale(&runtime, &config), None);
    assert!(stale(&runtime, &pool).is_some());
    // A replacement, or a check, does not end it.
    server.1.fails(None);
    let check = runtime.registry.check_reload(pool.0);
    assert!(begin(&mut runtime, check).take().is_ok());
    assert!(stale(&runtime, &pool).is_some());
    assert!(reload(&mut runtime, &config).take().is_ok());
    assert_eq!(stale(&runtime, &pool), None, "it was a member");

    server.1.fails("no memory");
    refuse(&mut runtime, &pool);
    server.1.fails(None);
    runtime.restart(pool.0);
    runtime.advance(ms(1_000));
    assert_eq!(runtime.get(pool.0), Some(11));
    assert_eq!(stale(&runtime, &pool), None);
    assert_eq!(runtime.registry.readiness().problems.len(), 0);
}

/// Records its listing, and the refusals that it receives.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Observer for Lines {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        if let EventKind::ReloadRefused(error) = event.kind {
            self.0.lock().unwrap().push(format!("{}: {error}", event.service));
        }
    }

    fn listing(&self, registry: &Registry, listing: &Listing) {
        let stale = |it: &&mainstay::ServiceStatus| {
            it.supervisor.as_ref().is_some_and(|it| it.stale.is_some())
        };
        let listed = listing.services.iter().filter(stale).map(|it| it.name.to_string());
        self.0.lock().unwrap().extend(listed);
        // During the listing: kept until it has ended.
        let pool = registry.find("pool").unwrap();
        let foreign = registry.reload(pool);
        drop(foreign);
    }
}

#[test]
fn an_observer_that_is_added_receives_what_its_listing_does_not_show() {
    let (mut runtime, [config, pool, _]) = super::chain();
    pool.1.fails("no memory");
    refuse(&mut runtime, &config);
    let lines = Lines::default();
    let handle = runtime.registry.observe(lines.clone());
    refuse(&mut runtime, &pool);
    let text = "pool: pool was not reloaded: the build of pool failed";
    assert_eq!(*lines.0.lock().unwrap(), ["config", text]);
    drop(handle);
}

#[test]
fn a_root_that_has_failed_is_not_stale() {
    let (mut runtime, [config, pool, _]) = super::chain();
    pool.1.takes(ms(10));
    let reload = reload(&mut runtime, &config);
    runtime.registry.fail(config.0, "edited").unwrap();
    runtime.run_until_idle();
    assert!(matches!(reload.take(), Err(ReloadError::Failed { .. })));
    runtime.advance(ms(500));
    assert_eq!(runtime.get(config.0), Some(1));
    assert_eq!(stale(&runtime, &config), None);
}
