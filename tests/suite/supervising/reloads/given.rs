//! Reloads with a value that the body of the root has.
//!
//! - The value is the new instance of the root, and its body continues. The dependents are built
//!   from it, and all of them are switched at one instant.
//! - A reload that has not taken place returns the value. It begins anew only if no build holds the
//!   value.
//! - The root keeps what it was built from.
//! - A handle of an ended publication reloads nothing.

use super::{switched::with_handle, *};
use crate::{supervising::runtime::ms, support::poll_once};
use mainstay::{Instance, error::ReloadValueError, supervise::Live};

type Given = Awaited<Result<Reloaded, ReloadValueError<u32>>>;

fn value(given: &Given) -> (u32, String) {
    let error = given.take().unwrap_err();
    let text = error.to_string();
    (error.value.into_inner(), text)
}

#[test]
fn the_value_is_switched_together_with_the_dependents() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let pool = supervise(&mut runtime, "pool", &[config]);
    pool.1.takes(ms(10));
    let wait = live.reload(5);
    let given = begin(&mut runtime, wait);
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(1), Some(1)));
    runtime.advance(ms(10));
    let reloaded = given.take().unwrap();
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(5), Some(5)));
    let members: Vec<_> =
        reloaded.members.iter().map(|it| (&*it.service, it.to, it.build_took)).collect();
    assert_eq!(members, [("config", 1, ms(0)), ("pool", 1, ms(10))]);
    // The publication continues.
    assert!(live.stop_reason().is_none());
    live.replace(6).unwrap();
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(6), Some(5)));
}

#[test]
fn a_value_without_dependents_is_a_replacement() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    runtime.recorder.take();
    assert!(pollster::block_on(live.reload(5)).is_ok());
    assert_eq!(runtime.get(config), Some(5));
    assert_eq!(events(&runtime), ["config 0: replaced"]);
}

#[test]
fn a_value_comes_back_if_a_dependent_refuses() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let pool = supervise(&mut runtime, "pool", &[config]);
    pool.1.takes(ms(10));
    pool.1.fails("out of range");
    let wait = live.reload(5);
    let given = begin(&mut runtime, wait);
    runtime.advance(ms(10));
    let text = "config was not reloaded: the build of pool failed";
    assert_eq!(value(&given), (5, text.into()));
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(1), Some(1)));
    let stale = runtime.supervisor_status(config).stale.unwrap();
    assert_eq!(stale.why, "reload refused by pool: out of range");
}

#[test]
fn a_value_comes_back_in_each_other_case() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let pool = supervise(&mut runtime, "pool", &[config]);
    pool.1.takes(ms(10));

    let clock = runtime.clock.clone();
    let wait = live.reload(5);
    let late = begin(&mut runtime, async move { wait.timeout(ms(5), &clock).await });
    runtime.advance(ms(5));
    let text = "config was not reloaded within 5ms: waiting for pool (building for 5 ms)";
    assert_eq!(value(&late), (5, text.into()));

    let wait = live.reload(6);
    let old = begin(&mut runtime, wait);
    let wait = live.reload(7);
    let new = begin(&mut runtime, wait);
    assert_eq!(value(&old).0, 6);

    live.replace(8).unwrap();
    runtime.advance(ms(10));
    assert!(!new.is_over(), "it begins anew");
    runtime.advance(ms(10));
    assert_eq!(new.take().unwrap().tries, 2);
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(7), Some(7)));

    let not_polled = live.reload(9);
    runtime.registry.fail(config, "edited").unwrap();
    let error = pollster::block_on(not_polled).unwrap_err();
    assert_eq!(*error.value, 9);
    runtime.registry.close();
    let mut closed = live.reload(10);
    assert!(poll_once(&mut closed).is_ready());
    assert_eq!(pool.1.present(), 0);
}

#[test]
fn a_value_that_a_build_holds_comes_back_after_one_try() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let pool = runtime.service("pool");
    let (clock, held) = (runtime.clock.clone(), Arc::default());
    let hold: Arc<Mutex<Option<Arc<Instance<u32>>>>> = Arc::clone(&held);
    runtime.supervise(pool, exact(), move |build| {
        let (clock, hold) = (clock.clone(), Arc::clone(&hold));
        async move {
            let config = build.wait_for(config).await?;
            *hold.lock().unwrap() = Some(Arc::clone(&config));
            clock.sleep_until(clock.now() + ms(10)).await;
            Ok::<_, BoxError>(**config)
        }
    });
    runtime.advance(ms(10));
    let wait = live.reload(5);
    let given = begin(&mut runtime, wait);
    live.replace(6).unwrap();
    runtime.advance(ms(10));
    let error = given.take().unwrap_err();
    assert!(matches!(&error.error, ReloadError::Changed { tries: 1, .. }), "{error:?}");
    assert_eq!(*error.value, 5);
    let shared = error.value.try_into_inner().unwrap_err();
    assert_eq!(**held.lock().unwrap().take().unwrap(), 5);
    assert_eq!(shared.try_into_inner().unwrap(), 5);
    assert_eq!(runtime.get(config), Some(6));
}

#[test]
fn the_root_keeps_its_dependencies() {
    let mut runtime = TestRuntime::new();
    let bases = ["first", "second"].map(|name| supervise(&mut runtime, name, &[]).0);
    let id = runtime.service("config");
    let handle = Arc::<Mutex<Option<Live<u32>>>>::default();
    let stored = Arc::clone(&handle);
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        *stored.lock().unwrap() = Some(live.clone());
        live.stopping().await.map(drop)
    });
    // Edges that the build has discovered.
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        let [first, second] = bases.map(|base| build.wait_for(base));
        Ok::<_, BoxError>(**first.await? + **second.await?)
    }));
    for base in bases {
        runtime.advance(exact_backoff());
        let live = handle.lock().unwrap().take().unwrap();
        assert!(pollster::block_on(live.reload(5)).is_ok());
        assert_eq!(runtime.get(id), Some(5));
        let instance = runtime.registry.get_arc(id).unwrap();
        assert_eq!(Instance::built_from(&instance).len(), 2);
        runtime.registry.fail(base, "broken").unwrap();
        assert_eq!(runtime.get(id), None);
    }
}

#[test]
fn a_handle_of_an_earlier_publication_reloads_nothing() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let wait = runtime.registry.reload(config);
    assert!(begin(&mut runtime, wait).take().is_ok());
    let error = pollster::block_on(live.reload(5)).unwrap_err();
    assert_eq!(error.value.into_inner(), 5);
    assert!(matches!(error.error, ReloadError::Failed { .. }));
    assert_eq!(runtime.get(config), Some(1));
}
