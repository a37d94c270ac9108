//! Lists of services, which `services!` defines.
//!
//! - `build` creates a registry with exactly these services, by their names and types.
//! - On a builder and in a running registry, there may be other services. A name or a type that is
//!   refused is an error that names the service.
//! - A list may have no service, one, or hundreds, and be defined in a module or a function. Types
//!   may be paths, and fields raw identifiers. Visibilities and attributes are as written.
//! - Each service has a type of its own, also if two have values of one type.

use std::collections::HashSet;

use mainstay::{
    AnyId, Registry, ServiceId, ServiceSet, ServiceType,
    error::{RegisterError, ServicesError},
};

use crate::support::up;

mod shop {
    #[derive(Debug)]
    pub(crate) struct Pool(pub(crate) u32);

    /// A name that is a constant.
    pub(crate) const POOL: &str = "db/pool";

    mainstay::services! {
        /// The services of the shop.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(crate) struct Services {
            /// Text.
            pub(crate) config: String,
            pub(crate) pool(POOL): crate::registering::lists::shop::Pool,
            pub(super) r#type: Vec<Option<&'static str>>,
            #[allow(dead_code)]
            private(""): [u8; 4]
        }
        pub(crate) mod service;
    }
}

#[test]
fn build_creates_a_registry_with_exactly_these_services() {
    let (registry, services) = shop::Services::build().unwrap();
    assert_eq!(shop::Services::NAMES, ["config", "db/pool", "type", ""]);
    let listed = registry.list().services;
    let listed: Vec<&str> = listed.iter().map(|status| &*status.name).collect();
    assert_eq!(listed, shop::Services::NAMES);
    assert_eq!((registry.capacity(), shop::Services::CAPACITY), (4, 4));

    let pool: ServiceId<shop::Pool> = services.pool;
    assert_eq!(registry.id::<shop::Pool>("db/pool").unwrap(), pool);
    let _up = up(&registry, pool, shop::Pool(5));
    assert_eq!(registry.get(services.pool).unwrap().0, 5);
    let _kind: ServiceId<Vec<Option<&'static str>>> = services.r#type;

    assert_eq!(services, { services });
    assert_eq!(services.by_name("db/pool"), Some(pool.into()));
    for name in shop::Services::NAMES {
        let id = registry.find(name).unwrap();
        assert_eq!(services.by_name(name), Some(id));
        assert_eq!(services.name_of(id), Some(name));
    }
    for unknown in ["pool", "Config", "config ", "r#type"] {
        assert_eq!(services.by_name(unknown), None);
    }
    let all: ServiceSet = registry.list().services.iter().map(|status| status.id).collect();
    assert_eq!(services.all(), all);
    assert_eq!(registry.fail_all(&services.all(), "all").unwrap().cascade.failed, 1);

    // The ids of another registry have no name here.
    let (_other, foreign) = shop::Services::build().unwrap();
    assert_eq!(services.name_of(foreign.pool), None);
    assert_ne!(foreign, services);
}

#[test]
fn a_builder_and_a_running_registry_may_have_other_services() {
    mainstay::services! {
        struct Storage { disk: u64, shared: u8 }
    }
    mainstay::services! {
        struct Web { shared: u8, listener: u16 }
    }
    let mut builder = Registry::builder(Storage::CAPACITY + 1).unwrap();
    let other = builder.register::<String>("other").unwrap();
    let storage = Storage::register(&mut builder).unwrap();
    assert_eq!(storage.shared, builder.register("shared").unwrap());
    match Web::register(&mut builder) {
        Err(RegisterError::Capacity { service, capacity: 3 }) => assert_eq!(service, "listener"),
        other => panic!("{:?}", other.err()),
    }
    let registry = builder.build();
    assert!(!storage.all().contains(other));
    let found = Storage::register_in(&registry).unwrap();
    assert_eq!((found.disk, found.shared), (storage.disk, storage.shared));
    assert!(matches!(Web::register_in(&registry), Err(RegisterError::Capacity { .. })));
    registry.close();
    match Storage::register_in(&registry) {
        Err(RegisterError::Closed { service }) => assert_eq!(service, "disk"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn two_lists_share_a_service_of_one_name_and_type() {
    mainstay::services! {
        struct Left { shared: u8, other: u8 }
    }
    mainstay::services! {
        struct Right { shared: u8, own("other"): u16 }
    }
    let registry = Registry::with_capacity(4).unwrap();
    let left = Left::register_in(&registry).unwrap();
    match Right::register_in(&registry) {
        Err(RegisterError::WrongType { service, registered: "u8", requested: "u16" }) => {
            assert_eq!(service, "other");
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(registry.id::<u8>("shared").unwrap(), left.shared);
    assert_eq!(registry.find("other").unwrap(), AnyId::from(left.other));
}

#[test]
fn a_list_may_have_no_service() {
    mainstay::services! {
        #[derive(Clone, Copy)]
        struct Nothing {}
        mod nothing;
    }
    let (registry, services) = Nothing::build().unwrap();
    assert_eq!((Nothing::CAPACITY, registry.capacity()), (0, 0));
    assert_eq!(Nothing::NAMES, [""; 0]);
    assert!(services.all().is_empty() && services.by_name("").is_none());
    assert!(Nothing::register_in(&registry).is_ok());
}

#[test]
fn a_list_in_a_function_may_have_types_of_the_function() {
    struct Local(u8);

    mainstay::services! {
        struct One { local: Local, }
        mod types;
    }
    let (registry, services) = One::build().unwrap();
    let provider = registry.provide(services.local).unwrap();
    let _running = provider.begin().wait_blocking().unwrap().ready(Local(3));
    let guard = registry.get(types::local::id(&services)).unwrap();
    assert_eq!((guard.0, types::local::NAME), (3, "local"));
}

#[test]
fn each_service_has_a_type_of_its_own() {
    mainstay::services! {
        struct Counters { reads: u64, writes("counters/writes"): u64 }
        mod counter;
    }

    fn name_and_id<S: ServiceType<Value = u64>>(services: &S::Services) -> (&'static str, AnyId) {
        (S::NAME, S::id(services).into())
    }

    let (registry, services) = Counters::build().unwrap();
    let found = name_and_id::<counter::writes>(&services);
    assert_eq!(found, ("counters/writes", registry.find("counters/writes").unwrap()));
    let found = name_and_id::<counter::reads>(&services);
    assert_eq!(found, ("reads", services.reads.into()));
    let (_registry, services) = shop::Services::build().unwrap();
    assert_eq!(shop::service::pool::id(&services), services.pool);
    assert_eq!(shop::service::r#type::NAME, "type");
}

#[test]
fn an_error_of_build_has_the_text_of_what_was_refused() {
    let full = Registry::with_capacity(0).unwrap().register::<u8>("port").unwrap_err();
    let text = full.to_string();
    assert_eq!(ServicesError::from(full).to_string(), text);
    let refused = Registry::with_capacity(usize::MAX).unwrap_err();
    assert_eq!(ServicesError::from(refused), ServicesError::Registry(refused));
}

#[test]
fn a_list_may_have_hundreds_of_services() {
    mainstay::services! {
        struct Many {
            s0: u32, s1: u32, s2: u32, s3: u32, s4: u32, s5: u32, s6: u32,
            s7: u32, s8: u32, s9: u32, s10: u32, s11: u32, s12: u32, s13: u32,
            s14: u32, s15: u32, s16: u32, s17: u32, s18: u32, s19: u32, s20: u32,
            s21: u32, s22: u32, s23: u32, s24: u32, s25: u32, s26: u32, s27: u32,
            s28: u32, s29: u32, s30: u32, s31: u32, s32: u32, s33: u32, s34: u32,
            s35: u32, s36: u32, s37: u32, s38: u32, s39: u32, s40: u32, s41: u32,
            s42: u32, s43: u32, s44: u32, s45: u32, s46: u32, s47: u32, s48: u32,
            s49: u32, s50: u32, s51: u32, s52: u32, s53: u32, s54: u32, s55: u32,
            s56: u32, s57: u32, s58: u32, s59: u32, s60: u32, s61: u32, s62: u32,
            s63: u32, s64: u32, s65: u32, s66: u32, s67: u32, s68: u32, s69: u32,
            s70: u32, s71: u32, s72: u32, s73: u32, s74: u32, s75: u32, s76: u32,
            s77: u32, s78: u32, s79: u32, s80: u32, s81: u32, s82: u32, s83: u32,
            s84: u32, s85: u32, s86: u32, s87: u32, s88: u32, s89: u32, s90: u32,
            s91: u32, s92: u32, s93: u32, s94: u32, s95: u32, s96: u32, s97: u32,
            s98: u32, s99: u32, s100: u32, s101: u32, s102: u32, s103: u32, s104: u32,
            s105: u32, s106: u32, s107: u32, s108: u32, s109: u32, s110: u32, s111: u32,
            s112: u32, s113: u32, s114: u32, s115: u32, s116: u32, s117: u32, s118: u32,
            s119: u32, s120: u32, s121: u32, s122: u32, s123: u32, s124: u32, s125: u32,
            s126: u32, s127: u32, s128: u32, s129: u32, s130: u32, s131: u32, s132: u32,
            s133: u32, s134: u32, s135: u32, s136: u32, s137: u32, s138: u32, s139: u32,
            s140: u32, s141: u32, s142: u32, s143: u32, s144: u32, s145: u32, s146: u32,
            s147: u32, s148: u32, s149: u32, s150: u32, s151: u32, s152: u32, s153: u32,
            s154: u32, s155: u32, s156: u32, s157: u32, s158: u32, s159: u32, s160: u32,
            s161: u32, s162: u32, s163: u32, s164: u32, s165: u32, s166: u32, s167: u32,
            s168: u32, s169: u32, s170: u32, s171: u32, s172: u32, s173: u32, s174: u32,
            s175: u32, s176: u32, s177: u32, s178: u32, s179: u32, s180: u32, s181: u32,
            s182: u32, s183: u32, s184: u32, s185: u32, s186: u32, s187: u32, s188: u32,
            s189: u32, s190: u32, s191: u32, s192: u32, s193: u32, s194: u32, s195: u32,
            s196: u32, s197: u32, s198: u32, s199: u32,
        }
        mod many;
    }
    let (registry, services) = Many::build().unwrap();
    assert_eq!((Many::CAPACITY, registry.capacity()), (200, 200));
    assert_eq!(Many::NAMES.iter().collect::<HashSet<_>>().len(), 200);
    assert_eq!(services.all().len(), 200);
    assert_eq!(services.by_name("s199"), Some(services.s199.into()));
    assert_eq!(registry.id::<u32>("s42").unwrap(), many::s42::id(&services));
}
