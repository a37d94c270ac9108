//! Several reloads at a time.
//!
//! - Without a member in common they run side by side. With one, the later one waits.
//! - A newer reload of the same root supersedes the older one, whether that one builds or waits; so
//!   does a newer check an older check, and a reload a check. A check supersedes no reload.
//! - One that was superseded is over for the others, although nothing polls it.

use super::*;
use crate::{supervising::runtime::ms, support::poll_once};

#[test]
fn disjoint_reloads_run_side_by_side() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (supervise(&mut runtime, "a", &[]), supervise(&mut runtime, "b", &[]));
    for ((_, source), takes) in [(&a, 30), (&b, 10)] {
        source.set(1);
        source.takes(ms(takes));
    }
    let (of_a, of_b) = (reload(&mut runtime, &a), reload(&mut runtime, &b));
    runtime.advance(ms(10));
    assert_eq!(values(&runtime, [&a, &b]), [Some(0), Some(1)]);
    assert!(of_b.take().is_ok() && !of_a.is_over());
    runtime.advance(ms(20));
    assert!(of_a.take().is_ok());
    assert_eq!(values(&runtime, [&a, &b]), [Some(1), Some(1)]);
}

#[test]
fn a_reload_with_a_member_in_common_waits_for_the_earlier_one() {
    let (mut runtime, [config, pool, server]) = super::chain();
    server.1.takes(ms(10));
    let first = reload(&mut runtime, &config);
    let second = reload(&mut runtime, &server);
    let third = reload(&mut runtime, &pool);
    assert_eq!((pool.1.builds(), server.1.builds()), (3, 3));
    runtime.advance(ms(10));
    assert!(first.take().is_ok());
    let is_over = [second.is_over(), third.is_over()];
    assert_eq!(is_over, [false; 2]);
    assert_eq!(server.1.builds(), 4, "one of them has begun, and the other one waits");
    runtime.advance(ms(10));
    runtime.advance(ms(10));
    assert!(second.take().is_ok() && third.take().is_ok());
    assert_eq!(numbers(&runtime, &server), (1, 3));
    assert_eq!(numbers(&runtime, &pool), (1, 2));
}

#[test]
fn a_newer_reload_of_the_same_root_supersedes_one_that_builds() {
    let (mut runtime, [config, pool, _]) = super::chain();
    pool.1.takes(ms(100));
    config.1.set(2);
    let old = reload(&mut runtime, &config);
    runtime.advance(ms(50));
    config.1.set(3);
    let new = reload(&mut runtime, &config);
    let error = old.take().unwrap_err();
    assert!(matches!(&error, ReloadError::Superseded { root } if root == "config"));
    assert_eq!(runtime.supervisor_status(config.0).stale, None);
    assert_eq!(pool.1.present(), 1);
    runtime.advance(ms(50));
    assert!(!new.is_over());
    runtime.advance(ms(50));
    assert!(new.take().is_ok());
    assert_eq!(values(&runtime, [&config, &pool]), [Some(3), Some(13)]);
    assert_eq!(numbers(&runtime, &config), (1, 1));
}

#[test]
fn a_newer_reload_of_the_same_root_supersedes_one_that_waits() {
    let (mut runtime, [config, pool, server]) = super::chain();
    server.1.takes(ms(10));
    let first = reload(&mut runtime, &config);
    let old = reload(&mut runtime, &pool);
    let new = reload(&mut runtime, &pool);
    assert!(matches!(old.take(), Err(ReloadError::Superseded { .. })));
    runtime.advance(ms(10));
    runtime.advance(ms(10));
    assert!(first.take().is_ok() && new.take().is_ok());
    assert_eq!(numbers(&runtime, &pool), (1, 2));
}

#[test]
fn a_check_supersedes_an_older_check_and_a_reload_both() {
    let (mut runtime, [config, ..]) = super::chain();
    config.1.takes(ms(10));
    let check = |runtime: &mut TestRuntime| {
        let wait = runtime.registry.check_reload(config.0);
        begin(runtime, wait)
    };
    let first = check(&mut runtime);
    let second = check(&mut runtime);
    assert!(matches!(first.take(), Err(ReloadError::Superseded { .. })));
    let reload = reload(&mut runtime, &config);
    assert!(matches!(second.take(), Err(ReloadError::Superseded { .. })));
    let third = check(&mut runtime);
    runtime.advance(ms(10));
    assert!(reload.take().is_ok(), "a check supersedes no reload");
    runtime.advance(ms(10));
    assert!(third.take().is_ok());
}

#[test]
fn a_check_supersedes_an_older_check_that_waits() {
    let (mut runtime, [config, pool, _]) = super::chain();
    pool.1.takes(ms(10));
    let reload = reload(&mut runtime, &config);
    let [older, newer] = [(); 2].map(|()| {
        let wait = runtime.registry.check_reload(pool.0);
        begin(&mut runtime, wait)
    });
    assert!(matches!(older.take(), Err(ReloadError::Superseded { .. })));
    runtime.advance(ms(10));
    runtime.advance(ms(10));
    assert!(reload.take().is_ok() && newer.take().is_ok());
}

#[test]
fn a_superseded_reload_that_is_not_polled_delays_nothing() {
    let (mut runtime, [config, pool, _]) = super::chain();
    pool.1.takes(ms(10));
    let mut old = runtime.registry.reload(config.0);
    assert!(poll_once(&mut old).is_pending());
    runtime.run_until_idle();
    let new = reload(&mut runtime, &config);
    runtime.advance(ms(10));
    assert!(new.take().is_ok());
    assert!(matches!(pollster::block_on(old), Err(ReloadError::Superseded { .. })));
    assert_eq!(numbers(&runtime, &pool), (1, 1));
}
