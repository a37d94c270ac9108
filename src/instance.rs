//! Instances: the published values of a service, and what identifies one of them.

use std::{fmt, ops::Deref, sync::Arc};

#[cfg(feature = "supervise")]
use crate::store::SwitchLink;
use crate::{
    alive::DropNotice,
    numbers::{Generation, UnixTime},
    read::Guard,
    service::AnyId,
    store::{DependencyKind, InstanceTag, Tag},
    sync::{Recipient, Shielded},
};

/// A published value of a service, with its generation. It is immutable, and dereferences to the
/// value.
///
/// Its own functions are associated functions, called as `Instance::generation(&instance)`, so that
/// they do not hide methods of the value.
///
/// ```
/// use mainstay::{Instance, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let greeting = registry.register::<String>("greeting")?;
/// let provider = registry.provide(greeting)?;
/// let _running = provider.begin().wait_blocking()?.ready("hello".to_string())?;
///
/// let instance = registry.get_arc(greeting)?;
/// assert_eq!(instance.len(), 5); // of the String
/// assert_eq!(Instance::generation(&instance), 0);
/// assert_eq!(registry.status(Instance::service(&instance))?.name, "greeting");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Instance<T> {
    service: AnyId,
    origin: Origin,
    /// Of an instance that a switch makes current.
    #[cfg(feature = "supervise")]
    link: SwitchLink<T>,
    /// Shielded here, because a read may drop the last reference to an instance.
    value: Shielded<T, Published<T>>,
}

/// What an instance has beside its value: its number, and the notice that its value was dropped.
/// One type, because the value is handed over with its number.
struct Published<T> {
    tag: InstanceTag,
    revision: u64,
    notice: DropNotice<T>,
}

impl<T> Published<T> {
    fn number(&self) -> InstanceNumber {
        InstanceNumber { generation: self.tag.generation(), revision: self.revision }
    }
}

/// What identifies an instance of one service. Numbers are in the order of the publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstanceNumber {
    /// The generation under which it was published: its tag is `Ready` in this generation.
    pub(crate) generation: Generation,
    /// The number of replacements in this generation before it.
    pub(crate) revision: u64,
}

impl<T> Instance<T> {
    /// Returns the generation under which the value was published. A replacement has the same
    /// generation.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let instance = registry.get_arc(port)?;
    /// assert_eq!(mainstay::Instance::generation(&instance), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn generation(this: &Self) -> Generation {
        this.value.recipient().tag.generation()
    }

    /// Returns the id of the service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let instance = registry.get_arc(port)?;
    /// assert_eq!(mainstay::Instance::service(&instance), port.into());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn service(this: &Self) -> AnyId {
        this.service
    }
}

impl<T> Instance<T> {
    /// Returns how often the value had been [replaced](crate::Running::replace) in this generation
    /// before this instance: 0 for the instance that the attempt has published.
    ///
    /// Service, generation and revision together identify an instance ([`InstanceId`]).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// use mainstay::{Guard, Instance};
    ///
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(Guard::revision(&registry.get(port)?), 0);
    /// running.replace(81)?;
    /// let instance = registry.get_arc(port)?;
    /// assert_eq!(Instance::revision(&instance), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revision(this: &Self) -> u64 {
        this.value.recipient().revision
    }

    /// Returns the instances from which this one was built, in the order of their registration.
    ///
    /// These are the instances that the waits of its attempt returned
    /// ([`wait_for`](crate::Attempt::wait_for), [`wait_to_start`](crate::Attempt::wait_to_start)):
    /// one entry for each service and kind, the last one that a wait returned. A service that the
    /// attempt only [watches](crate::Attempt::watch) has no entry. A replacement has the entries of
    /// the instance that it replaces.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<u16>("config")?;
    /// # let server = registry.register::<String>("server")?;
    /// # let provide_config = registry.provide(config)?;
    /// # let provide_server = registry.provide(server)?;
    /// use mainstay::{DependencyKind, Instance};
    ///
    /// let _config = provide_config.begin().wait_blocking()?.ready(80)?;
    /// let attempt = provide_server.begin().wait_blocking()?;
    /// let port = attempt.wait_for(config).wait_blocking()?;
    /// let _server = attempt.ready(format!("localhost:{}", **port))?;
    ///
    /// let server = registry.get_arc(server)?;
    /// let [from] = Instance::built_from(&server) else { unreachable!("one wait") };
    /// assert_eq!((from.service, from.kind), (config.into(), DependencyKind::Hard));
    /// assert_eq!((from.generation, from.revision), (Instance::generation(&port), 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn built_from(this: &Self) -> &[BuiltFrom] {
        this.origin.built_from()
    }

    pub(crate) fn new(
        number: InstanceNumber,
        service: AnyId,
        origin: Origin,
        value: T,
        notice: DropNotice<T>,
    ) -> Self {
        let InstanceNumber { generation, revision } = number;
        let published = Published { tag: InstanceTag::ready(generation), revision, notice };
        let value = Shielded::with_recipient(value, published);
        Self {
            service,
            origin,
            #[cfg(feature = "supervise")]
            link: SwitchLink::none(),
            value,
        }
    }

    /// An instance that a switch makes current. No reader returns it before.
    #[cfg(feature = "supervise")]
    pub(crate) fn undecided(
        number: InstanceNumber,
        service: AnyId,
        origin: Origin,
        link: SwitchLink<T>,
        value: T,
        notice: DropNotice<T>,
    ) -> Self {
        let InstanceNumber { generation, revision } = number;
        let published = Published { tag: InstanceTag::undecided(generation), revision, notice };
        let value = Shielded::with_recipient(value, published);
        Self { service, origin, link, value }
    }

    pub(crate) fn number(this: &Self) -> InstanceNumber {
        this.value.recipient().number()
    }

    /// Returns the state under which the instance is current.
    #[inline]
    pub(crate) fn tag(this: &Self) -> Tag {
        this.value.recipient().tag.load()
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn link(this: &Self) -> &SwitchLink<T> {
        &this.link
    }

    /// Called after the commit of the switch that makes the instance current.
    #[cfg(feature = "supervise")]
    pub(crate) fn decide(this: &Self) {
        this.value.recipient().tag.decide();
    }

    /// Claims the value for the receiver of its service, if there is one. The caller has a
    /// reference to the instance.
    #[cfg(feature = "supervise")]
    pub(crate) fn claim(this: &Arc<Self>) {
        this.value.recipient().notice.claim(this);
    }

    pub(crate) fn origin(this: &Self) -> &Origin {
        &this.origin
    }

    /// Returns the value. It is neither dropped nor handed over.
    pub(crate) fn into_value(this: Self) -> T {
        this.value.into_inner()
    }
}

impl<T> Recipient<T> for Published<T> {
    #[inline]
    fn receive(&self, take: impl FnOnce() -> T) {
        self.notice.hand_over(self.number(), take);
    }
}

/// How the instances of one generation came to be. A replacement has the origin of the instance
/// that it replaces.
#[derive(Clone)]
pub(crate) struct Origin {
    /// `None` if it was built from nothing.
    pub(crate) built_from: Option<Arc<[BuiltFrom]>>,
    /// The time of the publication.
    pub(crate) published_at: UnixTime,
}

impl Origin {
    pub(crate) fn built_from(&self) -> &[BuiltFrom] {
        self.built_from.as_deref().unwrap_or_default()
    }
}

/// An instance from which another one was built, and how it was used
/// ([`Instance::built_from`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltFrom {
    /// The service of the instance.
    pub service: AnyId,
    /// The generation of the instance.
    pub generation: Generation,
    /// The revision of the instance.
    pub revision: u64,
    /// The kind of the edge: hard or start-only.
    pub kind: DependencyKind,
}

/// What identifies an instance: its service, its generation, and its revision.
///
/// For [`Registry::fail_instance`](crate::Registry::fail_instance). It is converted from an
/// [`Instance`] or a [`Guard`], or is put together from numbers, for example by a tool that has
/// read them from a log.
///
/// ```
/// use mainstay::{FailOutcome, InstanceId};
///
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// # let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// let first = InstanceId::from(&registry.get(port)?);
/// running.replace(81)?;
/// assert_eq!(registry.fail_instance(first, "refused")?, FailOutcome::Replaced);
///
/// let any_revision = InstanceId { revision: None, ..first };
/// assert!(matches!(registry.fail_instance(any_revision, "refused")?, FailOutcome::Failed(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId {
    /// The service of the instance.
    pub service: AnyId,
    /// The generation of the instance.
    pub generation: Generation,
    /// The revision of the instance. `None` means the instance of the generation that is current at
    /// the time of the call.
    pub revision: Option<u64>,
}

impl<T> From<&Instance<T>> for InstanceId {
    fn from(instance: &Instance<T>) -> Self {
        let InstanceNumber { generation, revision } = Instance::number(instance);
        Self { service: instance.service, generation, revision: Some(revision) }
    }
}

impl<T> From<&Arc<Instance<T>>> for InstanceId {
    fn from(instance: &Arc<Instance<T>>) -> Self {
        Self::from(&**instance)
    }
}

impl<T> From<&Guard<T>> for InstanceId {
    fn from(guard: &Guard<T>) -> Self {
        Self::from(Guard::instance(guard))
    }
}

impl<T> Deref for Instance<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Instance<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("generation", &Self::generation(self))
            .field("revision", &Self::revision(self))
            .field("value", &*self.value)
            .finish()
    }
}
