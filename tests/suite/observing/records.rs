//! Records of failures.
//!
//! - A record has the parts of its failure, the text of the reason, and the texts of its sources:
//!   at most 64, so also if an error is its own source.
//! - A record has the text of its failure and of all sources of it.
//! - A failure and its record have the same serialised form. It can be read back as a record that
//!   is equal, with the exact time. A form that is no record is refused.

use std::{error::Error, fmt, time::SystemTime};

use crate::support::{publish, registry_of, up};
use mainstay::{Failure, FailureRecord, Registry, error::chain};

/// An error with a source, if `depth` is above zero.
#[derive(Debug)]
struct Nested {
    depth: usize,
    source: Option<Box<Nested>>,
}

impl Nested {
    fn new(depth: usize) -> Self {
        Self { depth, source: depth.checked_sub(1).map(|depth| Box::new(Self::new(depth))) }
    }
}

impl fmt::Display for Nested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "depth {}", self.depth)
    }
}

impl Error for Nested {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error that is its own source.
#[derive(Debug)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("again")
    }
}

impl Error for Endless {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self)
    }
}

/// The failures of `config` and of `port`, which was built from it, for this reason.
fn failures(reason: impl Into<Box<dyn Error + Send + Sync>>) -> [Failure; 2] {
    let (registry, [config, port]) = registry_of::<u32, 2>(["config", "port"]);
    registry.depends(port).on(config).unwrap();
    let (provide_config, first) = up(&registry, config, 1);
    first.fail("the first one");
    let _config = publish(&provide_config, 2);
    let provide_port = registry.provide(port).unwrap();
    publish(&provide_port, 1).fail("a failure of its own");
    let _port = publish(&provide_port, 2);
    registry.fail(config, reason).unwrap();
    [config, port].map(|id| registry.status(id).unwrap().last_failure.unwrap())
}

#[test]
fn a_record_has_the_parts_and_the_text_of_its_failure() {
    for failure in failures("line 3: \"no\" \u{e9}") {
        let record = FailureRecord::from(&failure);
        assert_eq!((&record.service, &record.root), (&failure.service, &failure.root));
        assert_eq!((record.generation, record.root_generation.get()), (failure.generation, 1));
        assert_eq!(record.reason, "line 3: \"no\" \u{e9}");
        assert_eq!(record.sources, [""; 0]);
        assert_eq!(record.at, failure.at);
        assert_eq!(record.to_string(), chain(&failure).to_string());
    }
    let [_, failure] = failures("edited");
    let text = FailureRecord::from(&failure).to_string();
    assert_eq!(text, "port failed because config failed: edited");
}

#[test]
fn a_record_has_the_texts_of_all_causes_up_to_a_limit() {
    let [failure, _] = failures(Nested::new(3));
    let record = FailureRecord::from(&failure);
    assert_eq!(record.reason, "depth 3");
    assert_eq!(record.sources, ["depth 2", "depth 1", "depth 0"]);
    assert_eq!(record.to_string(), "config failed: depth 3: depth 2: depth 1: depth 0");

    let [failure, _] = failures(Nested::new(100));
    let sources = FailureRecord::from(&failure).sources;
    assert_eq!((sources.len(), &*sources[0], &*sources[63]), (64, "depth 99", "depth 36"));
    let [failure, _] = failures(Endless);
    assert_eq!(FailureRecord::from(&failure).sources, ["again"; 64]);
}

#[test]
fn a_record_of_a_reason_that_is_no_error_has_no_sources() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("service").unwrap();
    let (_provider, running) = up(&registry, id, 1);
    drop(running);
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    let record = FailureRecord::from(&failure);
    assert_eq!(record.reason, "the running handle was dropped");
    assert_eq!(record.sources, [""; 0]);
    assert!(record.at <= SystemTime::now());
}

#[cfg(feature = "supervise")]
#[test]
fn a_record_of_an_expired_grace_period_has_the_causes_of_the_failure_of_the_dependency() {
    use mainstay::{
        Reason,
        error::{GetError, Unavailable},
    };
    use std::{sync::Arc, time::Duration};

    let [_, failure] = failures(Nested::new(2));
    // As if two grace periods had expired, one because of the other.
    let expired = |dependency: Failure| {
        let (registry, [id]) = registry_of::<u32, 1>(["service"]);
        let Err(GetError::NotReady(mut missing)) = registry.get(id) else { panic!() };
        (missing.service, missing.generation) = (dependency.service.clone(), dependency.generation);
        let (mut failure, grace) = (dependency.clone(), Duration::from_secs(3));
        missing.kind = Unavailable::Failed(Arc::new(dependency));
        failure.reason = Reason::GraceExpired { missing: Arc::new(missing), grace };
        failure
    };
    let failure = expired(expired(failure));
    let record = FailureRecord::from(&failure);
    assert_eq!(record.reason, "port was not ready again within 3s");
    let once = [
        "port has no current instance of generation 1",
        "port failed because config failed: port was not ready again within 3s",
        "port has no current instance of generation 1",
        "port failed because config failed",
    ];
    assert_eq!(record.sources[..4], once);
    assert_eq!(record.sources[4..], ["depth 2", "depth 1", "depth 0"]);
    assert_eq!(record.to_string(), chain(&failure).to_string());
}

#[cfg(feature = "serde")]
mod serialised {
    use std::time::Duration;

    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_serialised_failure_can_be_read_back_as_its_record() {
        let mut all = failures(Nested::new(2)).to_vec();
        all.extend(failures("a \"quoted\"\nreason\0"));
        for failure in all {
            let text = serde_json::to_string(&failure).unwrap();
            let record: FailureRecord = serde_json::from_str(&text).unwrap();
            assert_eq!(record, FailureRecord::from(&failure));
            assert_eq!(record.to_string(), chain(&failure).to_string());
            assert_eq!(serde_json::to_string(&record).unwrap(), text);
        }
    }

    #[test]
    fn the_serialised_form_has_all_fields_by_their_names() {
        let [_, mut failure] = failures(Nested::new(1));
        failure.at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let expected = json!({
            "service": "port",
            "generation": 1,
            "root": "config",
            "root_generation": 1,
            "reason": "depth 1",
            "sources": ["depth 0"],
            "planned": false,
            "at": "2023-11-14T22:13:20.123456789Z",
        });
        assert_eq!(serde_json::to_value(&failure).unwrap(), expected);
    }

    #[test]
    fn times_are_exact_strings_of_rfc_3339() {
        let [mut failure, _] = failures("edited");
        let epoch = SystemTime::UNIX_EPOCH;
        let cases = [
            (epoch, "1970-01-01T00:00:00.000000000Z"),
            (epoch + Duration::from_nanos(100), "1970-01-01T00:00:00.000000100Z"),
            (epoch - Duration::from_nanos(100), "1969-12-31T23:59:59.999999900Z"),
            (epoch - Duration::from_secs(1), "1969-12-31T23:59:59.000000000Z"),
            (epoch - Duration::from_millis(1500), "1969-12-31T23:59:58.500000000Z"),
            (epoch + Duration::new(951_782_400, 1), "2000-02-29T00:00:00.000000001Z"),
            (epoch + Duration::new(9_000_000_000, 999_999_900), "2255-03-14T16:00:00.999999900Z"),
        ];
        for (at, text) in cases {
            failure.at = at;
            let value = serde_json::to_value(&failure).unwrap();
            assert_eq!(value["at"], text);
            let record: FailureRecord = serde_json::from_value(value).unwrap();
            assert_eq!(record.at, at);
        }
        failure.at = epoch + Duration::from_secs(1 << 40);
        assert!(serde_json::to_value(&failure).is_err(), "the year has more than four digits");
    }

    #[test]
    fn a_form_that_is_no_record_is_refused() {
        let [failure, _] = failures("edited");
        let good = serde_json::to_value(&failure).unwrap();
        let error = |key: &str, part: Value| {
            let mut changed = good.clone();
            changed[key] = part;
            serde_json::from_value::<FailureRecord>(changed).unwrap_err().to_string()
        };
        let time = |at: &str| error("at", at.into());
        for wrong in ["", "now", "2026-11-28", "2026-02-29T00:00:00Z", "2026-11-28T11:43:17"] {
            assert!(!time(wrong).is_empty(), "{wrong}");
        }
        assert!(error("at", json!(1.5)).contains("invalid type"));
        assert!(error("generation", json!(-1)).contains("invalid value"));
        assert!(error("service", json!(1)).contains("invalid type"));
        // Another offset is accepted.
        let mut shifted = good.clone();
        shifted["at"] = "1970-01-01T02:00:00+02:00".into();
        let record: FailureRecord = serde_json::from_value(shifted).unwrap();
        assert_eq!(record.at, SystemTime::UNIX_EPOCH);
        // A time that the system cannot represent is refused, without a panic. Others are exact.
        for year in ["-009999", "0001", "9999"] {
            let mut extreme = good.clone();
            extreme["at"] = format!("{year}-06-01T00:00:00.000000001Z").into();
            match serde_json::from_value::<FailureRecord>(extreme.clone()) {
                Ok(record) => assert_eq!(serde_json::to_value(record).unwrap(), extreme),
                Err(error) => assert!(error.to_string().contains("out of range"), "{error}"),
            }
        }
    }
}
