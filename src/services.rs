//! `services!`: a struct with the ids of a program's services.

use crate::service::ServiceId;

/// A service of a list that [`services!`](crate::services) defines: a type of its own, also if
/// several services have values of one type.
///
/// `services!` implements it for the types of its module. With it, a function can be generic over
/// the service.
///
/// ```
/// use mainstay::{Guard, Registry, ServiceType, error::GetError};
///
/// mainstay::services! {
///     #[derive(Clone, Copy)]
///     struct Services {
///         reads: u64,
///         writes("counters/writes"): u64,
///     }
///     mod service;
/// }
///
/// /// Reads one of the services, and logs its name.
/// fn read<S: ServiceType>(
///     registry: &Registry,
///     services: &S::Services,
/// ) -> Result<Guard<S::Value>, GetError> {
///     println!("{} is read", S::NAME);
///     registry.get(S::id(services))
/// }
///
/// let (registry, services) = Services::build()?;
/// let provider = registry.provide(services.writes)?;
/// let _running = provider.begin().wait_blocking()?.ready(7)?;
/// assert_eq!(service::writes::NAME, "counters/writes");
/// assert_eq!(*read::<service::writes>(&registry, &services)?, 7);
/// assert!(read::<service::reads>(&registry, &services).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ServiceType {
    /// The struct with the ids.
    type Services;
    /// The type of the values.
    type Value: Send + Sync + 'static;
    /// The name of the service.
    const NAME: &'static str;

    /// Returns the id of the service.
    fn id(services: &Self::Services) -> ServiceId<Self::Value>;
}

/// Defines the services of a program: a struct with the typed id of each, and their registration in
/// one call. A new service is one more line.
///
/// ```
/// use mainstay::Registry;
/// use std::collections::HashMap;
///
/// mainstay::services! {
///     /// The services of the shop.
///     #[derive(Clone, Copy)]
///     pub struct Services {
///         /// What the operator has configured.
///         pub config: String,
///         pub pool("db/pool"): u32, // a name that differs from the field
///         pub cache: HashMap<String, String>,
///     }
/// }
///
/// let (registry, services) = Services::build()?;
/// registry.depends(services.pool).on(services.config)?;
/// let provider = registry.provide(services.config)?;
/// let _running = provider.begin().wait_blocking()?.ready("users = 5".to_string())?;
/// assert_eq!(*registry.get(services.config)?, "users = 5");
///
/// assert_eq!(Services::NAMES, ["config", "db/pool", "cache"]);
/// assert_eq!(services.by_name("db/pool"), Some(services.pool.into()));
/// registry.fail_all(&services.all(), "edited")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it defines
///
/// The struct, with a field `ServiceId<T>` for each `field: T`. Its attributes, its documentation,
/// its visibility and those of the fields are as written. The struct has
///
/// - `const CAPACITY: usize`, the number of its services, and
///   `const NAMES: [&'static str; CAPACITY]`, in the order of the fields;
/// - `fn build() -> Result<(Registry, Self), ServicesError>`, which creates a registry for exactly
///   these services;
/// - `fn register(builder: &mut RegistryBuilder) -> Result<Self, RegisterError>`, which registers
///   them on a builder with observers, a clock, or room for more, and
///   `fn register_in(registry: &Registry) -> Result<Self, RegisterError>`, which does it in a
///   running registry, or finds the services there;
/// - `fn by_name(&self, name: &str) -> Option<AnyId>` and
///   `fn name_of(&self, id: impl Into<AnyId>) -> Option<&'static str>`, which take no lock, and
///   visit the services one after another;
/// - `fn all(&self) -> ServiceSet`.
///
/// The errors are [`ServicesError`](crate::error::ServicesError) and
/// [`RegisterError`](crate::error::RegisterError). They name the service that was refused. A
/// registration that fails in a running registry leaves the services before that one registered.
///
/// # Capacity
///
/// `build` creates a registry that is full. For more services, add to the capacity:
///
/// ```
/// use mainstay::Registry;
///
/// mainstay::services! {
///     struct Storage { disk: u64, index: u64 }
/// }
/// mainstay::services! {
///     struct Web { listener: u16 }
/// }
///
/// let mut builder = Registry::builder(Storage::CAPACITY + Web::CAPACITY + 10)?;
/// let storage = Storage::register(&mut builder)?;
/// let web = Web::register(&mut builder)?;
/// let registry = builder.build();
/// registry.depends(web.listener).on(storage.index)?;
/// let plugin = registry.register::<String>("plugin")?; // one of the ten
/// assert_eq!(Storage::register_in(&registry)?.disk, storage.disk);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A name stands for one service of a registry: two structs that name a service of the same type
/// share it.
///
/// # A type for each service
///
/// With `mod service;`, `pub mod service;` or `pub(crate) mod service;` after the struct, the
/// module `service` contains a type for each service, with the name of its field. It implements
/// [`ServiceType`](crate::ServiceType).
///
/// # What does not compile
///
/// A name may be any constant text, but not that of two services:
///
/// ```compile_fail,E0080
/// mainstay::services! {
///     struct Services { reader: u8, writer("reader"): u8 }
/// }
/// ```
///
/// ```
/// mainstay::services! {
///     struct Services { reader: u8, writer("writer"): u8 }
/// }
/// ```
///
/// The values are shared between threads:
///
/// ```compile_fail,E0277
/// mainstay::services! {
///     struct Services { counter: std::rc::Rc<u8> }
/// }
/// ```
///
/// ```
/// mainstay::services! {
///     struct Services { counter: std::sync::Arc<u8> }
/// }
/// ```
///
/// An id has the type of its field:
///
/// ```compile_fail,E0308
/// mainstay::services! {
///     struct Services { port: u16, host: String }
/// }
/// let (registry, services) = Services::build()?;
/// let port: mainstay::Guard<u16> = registry.get(services.host)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```
/// mainstay::services! {
///     struct Services { port: u16, host: String }
/// }
/// let (registry, services) = Services::build()?;
/// assert!(registry.get(services.port).is_err()); // it is not ready
/// let port: Result<mainstay::Guard<u16>, _> = registry.get(services.port);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A field that is private to its module:
///
/// ```compile_fail,E0616
/// mod shop {
///     mainstay::services! {
///         pub struct Services { pool: u8 }
///     }
/// }
/// let (_, services) = shop::Services::build()?;
/// services.pool;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```
/// mod shop {
///     mainstay::services! {
///         pub struct Services { pub pool: u8 }
///     }
/// }
/// let (_, services) = shop::Services::build()?;
/// services.pool;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! services {
    (
        @struct [$(#[$attribute:meta])*] [$visibility:vis] $Services:ident {
            $(
                $(#[$field_attribute:meta])*
                $field_visibility:vis $field:ident $(($name:expr))? : $Value:ty
            ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $Services {
            $(
                $(#[$field_attribute])*
                $field_visibility $field: $crate::ServiceId<$Value>,
            )*
        }

        // A program may use a part of them.
        #[allow(dead_code)]
        impl $Services {
            /// The number of services.
            $visibility const CAPACITY: usize = {
                const FIELDS: &[&str] = &[$(stringify!($field)),*];
                FIELDS.len()
            };

            /// The names of the services, in the order of the fields.
            $visibility const NAMES: [&'static str; Self::CAPACITY] =
                [$($crate::services!(@name $field $(($name))?)),*];

            /// Creates a registry for exactly these services, and registers them.
            $visibility fn build()
            -> ::core::result::Result<($crate::Registry, Self), $crate::error::ServicesError> {
                let mut builder = $crate::Registry::builder(Self::CAPACITY)?;
                let services = Self::register(&mut builder)?;
                ::core::result::Result::Ok((builder.build(), services))
            }

            /// Registers the services on a builder, which may have room for more.
            $visibility fn register(
                builder: &mut $crate::RegistryBuilder,
            ) -> ::core::result::Result<Self, $crate::error::RegisterError> {
                let _ = &builder;
                ::core::result::Result::Ok(Self {
                    $($field: builder.register::<$Value>(
                        $crate::services!(@name $field $(($name))?),
                    )?,)*
                })
            }

            /// Registers the services in a running registry, or finds them there.
            $visibility fn register_in(
                registry: &$crate::Registry,
            ) -> ::core::result::Result<Self, $crate::error::RegisterError> {
                let _ = registry;
                ::core::result::Result::Ok(Self {
                    $($field: registry.register::<$Value>(
                        $crate::services!(@name $field $(($name))?),
                    )?,)*
                })
            }

            fn ids(&self) -> [$crate::AnyId; Self::CAPACITY] {
                [$($crate::AnyId::from(self.$field)),*]
            }

            /// Returns the service with this name.
            $visibility fn by_name(
                &self,
                name: &str,
            ) -> ::core::option::Option<$crate::AnyId> {
                let at = Self::NAMES.iter().position(|&found| found == name)?;
                ::core::option::Option::Some(self.ids()[at])
            }

            /// Returns the name of a service, if it is one of these.
            $visibility fn name_of(
                &self,
                id: impl ::core::convert::Into<$crate::AnyId>,
            ) -> ::core::option::Option<&'static str> {
                let id = id.into();
                let at = self.ids().iter().position(|&found| found == id)?;
                ::core::option::Option::Some(Self::NAMES[at])
            }

            /// Returns all of them.
            $visibility fn all(&self) -> $crate::ServiceSet {
                $crate::ServiceSet::from(self.ids())
            }
        }

        const _: () = $crate::__services::check_names(&$Services::NAMES);
    };
    (@name $field:ident) => {
        $crate::__services::name(stringify!($field))
    };
    (@name $field:ident ($name:expr)) => {
        $name
    };
    (@module $Services:ident $fields:tt) => {};
    (@module $Services:ident $fields:tt mod $module:ident;) => {
        $crate::services! { @types $Services [pub(super)] [] $module $fields }
    };
    (@module $Services:ident $fields:tt pub mod $module:ident;) => {
        $crate::services! { @types $Services [pub] [pub] $module $fields }
    };
    (@module $Services:ident $fields:tt pub(crate) mod $module:ident;) => {
        $crate::services! { @types $Services [pub(crate)] [pub(crate)] $module $fields }
    };
    (
        @types $Services:ident [$visibility:vis] [$($module_visibility:tt)*] $module:ident {
            $(
                $(#[$field_attribute:meta])*
                $field_visibility:vis $field:ident $(($name:expr))? : $Value:ty
            ),* $(,)?
        }
    ) => {
        /// A type for each service.
        #[allow(non_camel_case_types, dead_code)]
        $($module_visibility)* mod $module {
            $(
                #[doc = concat!("The service of the field `", stringify!($field), "`.")]
                #[derive(Debug, Clone, Copy)]
                $visibility struct $field;
            )*
        }

        // Not in the module: from there, the types of a function are not visible.
        $(impl $crate::ServiceType for $module::$field {
            type Services = $Services;
            type Value = $Value;
            const NAME: &'static str = $crate::services!(@name $field $(($name))?);

            fn id(services: &$Services) -> $crate::ServiceId<$Value> {
                services.$field
            }
        })*
    };
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $Services:ident $fields:tt
        $($module:tt)*
    ) => {
        $crate::services! { @struct [$(#[$attribute])*] [$visibility] $Services $fields }
        $crate::services! { @module $Services $fields $($module)* }
    };
}

/// What the macro calls.
#[doc(hidden)]
pub mod __services {
    /// The maximum length of a message, in bytes. A name for which there is no room is the message.
    const ROOM: usize = 512;

    /// Returns the name of a field without the mark of a raw identifier.
    pub const fn name(field: &'static str) -> &'static str {
        match field.as_bytes() {
            [b'r', b'#', name @ ..] => match std::str::from_utf8(name) {
                Ok(name) => name,
                Err(_) => field,
            },
            _ => field,
        }
    }

    /// Refuses to compile if two of the names are equal.
    pub const fn check_names<const N: usize>(names: &[&str; N]) {
        if let Some(name) = duplicate(names) {
            let (buffer, len) = message(name);
            match std::str::from_utf8(buffer.split_at(len).0) {
                Ok(message) => panic!("{}", message),
                Err(_) => panic!("{}", name),
            }
        }
    }

    const fn message(name: &str) -> ([u8; ROOM], usize) {
        let parts = [b"two services have the name `", name.as_bytes(), b"`"];
        let (mut buffer, mut len, mut part) = ([0; ROOM], 0, 0);
        while part < parts.len() {
            let mut i = 0;
            while i < parts[part].len() {
                if len == ROOM {
                    return (buffer_of_invalid(), ROOM);
                }
                buffer[len] = parts[part][i];
                (len, i) = (len + 1, i + 1);
            }
            part += 1;
        }
        (buffer, len)
    }

    const fn buffer_of_invalid() -> [u8; ROOM] {
        [0xff; ROOM]
    }

    /// Returns a name that occurs twice: by a merge sort, because the compiler counts steps.
    pub const fn duplicate<'a, const N: usize>(names: &[&'a str; N]) -> Option<&'a str> {
        let (mut from, mut to, mut width) = (*names, *names, 1);
        while width < N {
            let mut start = 0;
            while start < N {
                let middle = if start + width < N { start + width } else { N };
                let end = if middle + width < N { middle + width } else { N };
                let (mut left, mut right, mut at) = (start, middle, start);
                while at < end {
                    let is_left = right == end
                        || left < middle && !is_less(from[right].as_bytes(), from[left].as_bytes());
                    if is_left {
                        to[at] = from[left];
                        left += 1;
                    } else {
                        to[at] = from[right];
                        right += 1;
                    }
                    at += 1;
                }
                start = end;
            }
            from = to;
            width *= 2;
        }
        let mut i = 1;
        while i < N {
            // They are sorted.
            if !is_less(from[i - 1].as_bytes(), from[i].as_bytes()) {
                return Some(from[i]);
            }
            i += 1;
        }
        None
    }

    const fn is_less(a: &[u8], b: &[u8]) -> bool {
        let mut i = 0;
        while i < a.len() && i < b.len() {
            if a[i] != b[i] {
                return a[i] < b[i];
            }
            i += 1;
        }
        a.len() < b.len()
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    mod tests {
        use super::*;

        #[test]
        fn a_name_that_occurs_twice_is_found_wherever_it_is() {
            let sorted = ["", "a", "aa", "ab", "b", "ba", "é"];
            assert_eq!(duplicate::<0>(&[]), None);
            assert_eq!(duplicate(&["a"]), None);
            for shift in 0..sorted.len() {
                let mut names = sorted;
                names.rotate_left(shift);
                assert_eq!(duplicate(&names), None);
                for (i, j) in (0..7).flat_map(|i| (0..7).map(move |j| (i, j))) {
                    let mut names = names;
                    names[i] = names[j];
                    assert_eq!(duplicate(&names), (i != j).then_some(names[j]), "{names:?}");
                }
            }
        }

        #[test]
        fn the_message_names_the_name() {
            let (buffer, len) = message("é");
            assert_eq!(std::str::from_utf8(&buffer[..len]), Ok("two services have the name `é`"));
            let (buffer, len) = message(&"é".repeat(ROOM));
            assert!(std::str::from_utf8(&buffer[..len]).is_err());
        }

        #[test]
        #[should_panic(expected = "two services have the name `pool`")]
        fn two_equal_names_are_refused() {
            check_names(&["pool", "cache", "pool"]);
        }

        #[test]
        fn the_mark_of_a_raw_identifier_is_not_part_of_the_name() {
            assert_eq!(["r#type", "type", "r", "r2"].map(name), ["type", "type", "r", "r2"]);
        }
    }
}
