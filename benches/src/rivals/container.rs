//! The interface of all containers in the benchmark of reads, which are written to while they are
//! read.

/// The number of services that are read.
pub const SERVICES: usize = 64;

/// The index of one more service, which is not read. It fails and is published again in the
/// background.
pub const SPARE: usize = SERVICES;

/// The value of a service, the same in each publication.
#[inline]
pub fn answer(service: usize) -> u64 {
    service as u64 + 42
}

/// A container of the values of the services, each of which has memory of its own.
pub trait Container: Sync {
    /// Replaces the value of a service by an equal one in new memory.
    fn publish(&self, service: usize);

    /// Removes the value of a service. A container that cannot be empty replaces it.
    fn fail(&self, service: usize) {
        self.publish(service);
    }
}
