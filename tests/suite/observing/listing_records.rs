//! Records of listings.
//!
//! - A record has the parts of its listing, and the same text.
//! - A listing, a status and their records have the same serialised form. It is read back as a
//!   record that is equal: in every phase, for every kind of an edge, and in every state of a
//!   supervisor, also while these change.
//! - A field that is unknown is ignored, and an optional one that is missing is `None`. A form that
//!   is no record is refused.

use crate::support::{publish, publish_from, registry_of};
use mainstay::{
    BuiltFromRecord, DependencyKind, DependencyRecord, ListingRecord, Phase, Registry,
    ServiceRecord,
};

/// A registry with a service in each phase, and with what else a listing shows.
fn program<R>(then: impl FnOnce(&Registry) -> R) -> R {
    let names = ["config", "secrets", "cache", "pool", "server"];
    let (registry, [config, secrets, cache, pool, server]) = registry_of::<u32, 5>(names);
    registry.depends(server).on(pool).unwrap().to_start_on(secrets).unwrap();
    registry.depends(server).soft_on(cache).unwrap();
    let provide_config = registry.provide(config).unwrap();
    publish(&provide_config, 1).fail("line 3: \"no\" \u{e9}");
    let running = publish(&provide_config, 2);
    let provide_pool = registry.provide(pool).unwrap();
    let running_pool = publish_from(&provide_pool, config, 3);
    running.replace(4).unwrap();
    let provide_cache = registry.provide(cache).unwrap();
    let attempt = provide_cache.begin().wait_blocking().unwrap();
    let waiting = attempt.waiting_for("the lease");
    let result = then(&registry);
    drop((waiting, running_pool));
    result
}

#[test]
fn a_record_has_the_parts_and_the_text_of_its_listing() {
    program(|registry| {
        let listing = registry.list();
        let record = ListingRecord::from(&listing);
        assert_eq!(record.to_string(), listing.to_string());
        assert_eq!(record.services.len(), 5);
        for (record, status) in record.services.iter().zip(&listing.services) {
            assert_eq!(record, &ServiceRecord::from(status));
            assert_eq!(record.to_string(), status.to_string());
            assert_eq!((&record.name, &*record.type_name), (&status.name, status.type_name));
            assert_eq!((record.phase, record.generation), (status.phase, status.generation));
            assert_eq!((record.revision, record.replaced), (status.revision, status.replaced));
            assert_eq!((record.built, record.failed), (status.built, status.failed));
            assert_eq!((record.since, record.waiters), (status.since, status.waiters));
            assert_eq!(record.has_provider, status.has_provider);
            assert_eq!(record.optional, status.optional);
            assert_eq!(record.dependents, status.dependents);
            assert_eq!(record.watched_by, status.watched_by);
            assert_eq!(record.blocked_by, status.blocked_by);
            assert_eq!(record.waiting_for.as_deref(), status.waiting_for.as_deref());
            assert_eq!(record.last_failure.is_some(), status.last_failure.is_some());
            let edges = status.dependencies.iter().map(DependencyRecord::from);
            assert!(record.dependencies.iter().cloned().eq(edges));
            let from = status.built_from.iter().map(BuiltFromRecord::from);
            assert!(record.built_from.iter().cloned().eq(from));
        }
        let server = record.get("server").unwrap();
        let kinds: Vec<_> = server.dependencies.iter().map(|to| (&*to.name, to.kind)).collect();
        let expected = [
            ("secrets", DependencyKind::StartOnly),
            ("cache", DependencyKind::Soft),
            ("pool", DependencyKind::Hard),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(record.get("cache").unwrap().waiting_for.as_deref(), Some("the lease"));
        let phases = ["config", "cache", "server"].map(|name| record.get(name).unwrap().phase);
        assert_eq!(phases, [Phase::Ready, Phase::Starting, Phase::Down]);
        assert!(record.get("other").is_none());
    });
}

#[cfg(feature = "serde")]
mod serialised {
    use super::*;
    use mainstay::Listing;
    use serde_json::{Value, json};

    /// Reads a listing back, and checks that nothing was lost.
    fn round_trip(listing: &Listing) -> ListingRecord {
        let written = serde_json::to_value(listing).unwrap();
        let record: ListingRecord = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(record, ListingRecord::from(listing));
        assert_eq!(serde_json::to_value(&record).unwrap(), written);
        record
    }

    #[test]
    fn a_listing_is_read_back_in_every_phase() {
        program(|registry| {
            let record = round_trip(&registry.list());
            assert_eq!(record.services.len(), 5);
            // The parts have the same form alone.
            let status = &registry.list().services[4];
            let written = serde_json::to_value(status).unwrap();
            let read: ServiceRecord = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(read, ServiceRecord::from(status));
            let edge = serde_json::to_value(&status.dependencies[0]).unwrap();
            assert_eq!(written["dependencies"][0], edge);
            let edge: DependencyRecord = serde_json::from_value(edge).unwrap();
            assert_eq!(edge, DependencyRecord::from(&status.dependencies[0]));
            let from = &registry.list().services[3].built_from[0];
            let read = serde_json::from_value(serde_json::to_value(from).unwrap()).unwrap();
            assert_eq!(BuiltFromRecord::from(from), read);
            registry.close();
            round_trip(&registry.list());
        });
    }

    #[test]
    fn a_field_that_is_unknown_is_ignored_and_an_optional_one_may_be_missing() {
        program(|registry| {
            let record = ListingRecord::from(&registry.list());
            let mut form = serde_json::to_value(&record).unwrap();
            form["colour"] = "green".into();
            for service in form["services"].as_array_mut().unwrap() {
                service["colour"] = json!({ "red": 1 });
                let optional = ["waiting_for", "not_ready", "last_failure", "supervisor"];
                let service = service.as_object_mut().unwrap();
                service.retain(|key, value| !(optional.contains(&&**key) && value.is_null()));
            }
            let read: ListingRecord = serde_json::from_value(form).unwrap();
            assert_eq!(read, record);
        });
    }

    #[test]
    fn a_form_that_is_no_record_is_refused() {
        program(|registry| {
            let good = serde_json::to_value(registry.list()).unwrap();
            let error = |path: &str, part: Value| {
                let mut changed = good.clone();
                *changed.pointer_mut(path).unwrap() = part;
                serde_json::from_value::<ListingRecord>(changed).unwrap_err().to_string()
            };
            assert!(error("/services/0/phase", "up".into()).contains("unknown variant `up`"));
            assert!(error("/services/0/phase", "Ready".into()).contains("unknown variant"));
            assert!(error("/services/0/generation", json!(-1)).contains("invalid value"));
            assert!(error("/services/0/waiters", json!(1_u64 << 40)).contains("invalid value"));
            assert!(error("/services/0/since", json!(1.5)).contains("invalid type"));
            assert!(!error("/services/0/since", "yesterday".into()).is_empty());
            assert!(error("/services/0/name", Value::Null).contains("invalid type"));
            let kind = "/services/4/dependencies/0/kind";
            assert!(error(kind, "loose".into()).contains("unknown variant `loose`"));
            assert!(error("/services", json!({})).contains("invalid type"));
            let mut changed = good.clone();
            changed["services"][1].as_object_mut().unwrap().remove("phase");
            let missing = serde_json::from_value::<ListingRecord>(changed).unwrap_err();
            assert!(missing.to_string().contains("missing field `phase`"), "{missing}");
        });
    }

    #[cfg(feature = "test-kit")]
    mod supervisors {
        use std::{
            collections::BTreeSet,
            future::pending,
            sync::{Arc, Mutex},
            time::Duration,
        };

        use super::*;
        use crate::support::up;
        use mainstay::{
            Event, Observer,
            supervise::{Completed, Permanent, RestartPolicy, SupervisorState},
            test_kit::TestRuntime,
        };

        const SECOND: Duration = Duration::from_secs(1);

        const STATES: [SupervisorState; 13] = [
            SupervisorState::NotRunning,
            SupervisorState::Building,
            SupervisorState::Up,
            SupervisorState::Completed,
            SupervisorState::Stopping,
            SupervisorState::BodyRunning,
            SupervisorState::Draining,
            SupervisorState::Closing,
            SupervisorState::BackingOff,
            SupervisorState::Waiting,
            SupervisorState::Permanent,
            SupervisorState::GivenUp,
            SupervisorState::Stopped,
        ];

        #[test]
        fn every_state_is_read_back() {
            let mut runtime = TestRuntime::new(1).unwrap();
            let id = runtime.registry.register::<u32>("a").unwrap();
            let supervisor = runtime.registry.supervise(id).unwrap();
            runtime.spawn(supervisor.run(async |_| Err::<u32, _>("disk full")));
            runtime.run_until_idle();
            let form = serde_json::to_value(runtime.registry.list()).unwrap();
            let mut forms = BTreeSet::new();
            for state in STATES {
                let mut form = form.clone();
                form["services"][0]["supervisor"]["state"] = serde_json::to_value(state).unwrap();
                let record: ListingRecord = serde_json::from_value(form.clone()).unwrap();
                let supervisor = record.services[0].supervisor.as_ref().unwrap();
                assert_eq!((supervisor.state, supervisor.failures), (state, 1));
                assert!(supervisor.next_try_in.is_some() && supervisor.not_ready_for.is_some());
                assert_eq!(serde_json::to_value(&record).unwrap(), form);
                forms.insert(form.to_string());
            }
            assert_eq!(forms.len(), STATES.len());
            let mut form = form;
            form["services"][0]["supervisor"]["state"] = "asleep".into();
            assert!(serde_json::from_value::<ListingRecord>(form).is_err());
        }

        /// Reads the listing back at each event, and notes the states that it has shown.
        #[derive(Clone, Default)]
        struct RoundTrips(Arc<Mutex<BTreeSet<String>>>);

        impl Observer for RoundTrips {
            fn event(&self, registry: &Registry, _: &Event<'_>) {
                let record = round_trip(&registry.list());
                let states = record.services.iter().filter_map(|one| one.supervisor.as_ref());
                self.0.lock().unwrap().extend(states.map(|status| status.state.to_string()));
            }
        }

        #[test]
        fn a_listing_is_read_back_while_supervisors_work() {
            let mut runtime = TestRuntime::new(6).unwrap();
            let registry = runtime.registry.clone();
            let seen = RoundTrips::default();
            registry.observe(seen.clone()).detach();
            let ids = ["config", "flaky", "broken", "job", "reader", "server"];
            let [config, flaky, broken, job, reader, server] =
                ids.map(|name| registry.register::<u32>(name).unwrap());
            registry.depends(server).with_grace_on(config, SECOND).unwrap();

            let policy = RestartPolicy::default().max_failures(1, 60 * SECOND);
            let supervisor = registry.supervise(flaky).unwrap().restart_policy(policy);
            runtime.spawn(supervisor.run(async |_| Err::<u32, _>("disk full")));
            let supervisor = registry.supervise(broken).unwrap();
            runtime.spawn(supervisor.run(async |_| Err::<u32, _>(Permanent::new("no such file"))));
            let supervisor = registry.supervise(job).unwrap();
            runtime.spawn(supervisor.run(async |_| Completed(1)));
            let supervisor = registry.supervise(reader).unwrap();
            let of = registry.clone();
            runtime.spawn(supervisor.run(async move |_| of.get(config).map(|config| *config)));
            let policy = RestartPolicy::default()
                .drain_timeout(SECOND)
                .close_timeout(SECOND)
                .stop_timeout(SECOND);
            let supervisor = registry.supervise(server).unwrap().restart_policy(policy);
            let supervisor = supervisor
                .body(async |live| {
                    live.stopping().await.map(drop)?;
                    pending::<Result<(), mainstay::error::WaitError>>().await
                })
                .on_close(async |_| pending::<()>().await);
            runtime.spawn(supervisor.run(async |_| 1));
            runtime.run_until_idle();
            let (provider, running) = up(&registry, config, 1);
            runtime.advance(10 * SECOND);
            running.replace(2).unwrap();
            let held = registry.get_arc(server).unwrap();
            registry.fail(server, "reset by peer").unwrap();
            runtime.advance(SECOND / 2);
            drop(running);
            runtime.advance(10 * SECOND);
            drop(held);
            runtime.advance(10 * SECOND);
            runtime.spawn({
                let shutdown = registry.shutdown(60 * SECOND);
                async move { drop(shutdown.await) }
            });
            runtime.advance(60 * SECOND);
            drop(provider);
            assert!(registry.is_closed());
            round_trip(&registry.list());

            let seen = seen.0.lock().unwrap();
            for state in STATES {
                // These two have no event of their own, or need a thread.
                let not_seen = [SupervisorState::BodyRunning, SupervisorState::NotRunning];
                if !not_seen.contains(&state) {
                    assert!(seen.contains(&state.to_string()), "{state} is not one of {seen:?}");
                }
            }
        }
    }
}
