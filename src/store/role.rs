//! The role of providing a service: whether it is taken, whether a supervisor must take it, and
//! whether the service is a constant.

use crate::sync::{AtomicU32, Ordering};

/// Whether a service has a provider, whether that one is a supervisor, whether it is the registry
/// itself because the service is a constant, and whether a grace period is declared for the
/// service, which only a supervisor enforces. All in one word: so of a provider that takes the role
/// and a declaration at the same time, one comes first, and the other one is refused if the two do
/// not fit.
pub(crate) struct Role(AtomicU32);

/// Why a provider does not get the role.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RoleRefused {
    /// Another provider has it.
    Taken,
    /// A grace period is declared, and the provider is not a supervisor.
    NeedsSupervisor,
}

impl Role {
    const PROVIDED: u32 = 1;
    const SUPERVISED: u32 = 2;
    const HAS_GRACE: u32 = 4;
    const CONSTANT: u32 = 8;

    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes the role for a provider. Acquire: pairs with `release`.
    pub(crate) fn take(&self, supervised: bool) -> Result<(), RoleRefused> {
        self.take_as(Self::PROVIDED | if supervised { Self::SUPERVISED } else { 0 })
    }

    /// Takes the role for the registry itself, as the provider of a constant. Acquire: as `take`.
    pub(crate) fn take_for_constant(&self) -> Result<(), RoleRefused> {
        self.take_as(Self::PROVIDED | Self::CONSTANT)
    }

    fn take_as(&self, taken: u32) -> Result<(), RoleRefused> {
        let supervised = taken & Self::SUPERVISED != 0;
        let mut refused = RoleRefused::Taken;
        let took = self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| {
            refused = match word {
                word if word & Self::PROVIDED != 0 => RoleRefused::Taken,
                word if word & Self::HAS_GRACE != 0 && !supervised => RoleRefused::NeedsSupervisor,
                word => return Some(word | taken),
            };
            None
        });
        took.map(drop).map_err(|_| refused)
    }

    /// Makes the role free. Release: pairs with `take`, whose next caller sees all work of this
    /// provider.
    pub(crate) fn release(&self) {
        let taken = Self::PROVIDED | Self::SUPERVISED | Self::CONSTANT;
        self.0.fetch_and(!taken, Ordering::Release);
    }

    /// Returns whether the service is a constant. Relaxed: a declaration reads it under the lock of
    /// the topology, and the close after a read-modify-write of the state.
    pub(crate) fn is_constant(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::CONSTANT != 0
    }

    /// Returns whether the service has a provider. Relaxed: only a status shows it.
    pub(crate) fn is_provided(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::PROVIDED != 0
    }

    // The caller of the following functions holds the lock of the topology, which orders the
    // declared grace periods.

    /// Records that a grace period is declared. Returns false if the service has a provider that is
    /// not a supervisor. Relaxed: nothing depends on it but the word itself.
    pub(super) fn declare_grace(&self) -> bool {
        let declared = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let fits = word & (Self::PROVIDED | Self::SUPERVISED) != Self::PROVIDED;
            fits.then_some(word | Self::HAS_GRACE)
        });
        declared.is_ok()
    }

    /// Records that no grace period is declared any more. Relaxed, as `declare_grace`.
    pub(super) fn forget_grace(&self) {
        self.0.fetch_and(!Self::HAS_GRACE, Ordering::Relaxed);
    }
}
