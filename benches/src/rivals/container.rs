//! What the benchmark of reads asks of every container: to be written to while it is read.

/// How many services are read.
pub const SERVICES: usize = 64;

/// One more, which nobody reads: it fails and comes back in the background.
pub const SPARE: usize = SERVICES;

/// What a service answers, each time that it is published.
#[inline]
pub fn answer(service: usize) -> u64 {
    service as u64 + 42
}

/// Holds the values of the services, each in memory of its own.
pub trait Container: Sync {
    /// Puts a new value in, equal to the old one.
    fn publish(&self, service: usize);

    /// Takes the value out. What is never empty is written to instead.
    fn fail(&self, service: usize) {
        self.publish(service);
    }
}
