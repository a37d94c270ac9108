//! Graphs, and the orders in which their services are registered and their edges declared.

pub(super) use crate::graphs::{Edge, chain, hub};

/// An order of services or of edges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Dependencies before their dependents; of edges, those of the dependencies first.
    DependenciesFirst,
    DependentsFirst,
    /// A random order that is the same in each run.
    Random,
}

/// Returns the numbers below `len` in this order, if a service comes after its dependencies.
pub(super) fn in_order(len: usize, order: Order) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..len).collect();
    match order {
        Order::DependenciesFirst => {}
        Order::DependentsFirst => numbers.reverse(),
        Order::Random => fastrand::Rng::with_seed(len as u64).shuffle(&mut numbers),
    }
    numbers
}

/// Ten layers of services. Each service depends on three random services of the layer before it;
/// the services of the first layer depend on the first service, so its failure reaches all.
pub(super) fn layered(services: usize) -> Vec<Edge> {
    let mut random = fastrand::Rng::with_seed(services as u64);
    let width = (services - 1).div_ceil(10);
    let mut edges = Vec::new();
    for dependent in 1..services {
        let layer = (dependent - 1) / width;
        if layer == 0 {
            edges.push((dependent, 0));
            continue;
        }
        let first = 1 + (layer - 1) * width;
        // Each is chosen from another third of the layer, so that all are different.
        for third in 0..3 {
            let third = width * third / 3..width * (third + 1) / 3;
            edges.push((dependent, first + random.usize(third)));
        }
    }
    edges
}

/// One service in the middle: half of the others depend on it, and it depends on the other half.
pub(super) fn through_a_hub(services: usize) -> Vec<Edge> {
    let hub = services / 2;
    (0..hub).map(|i| (hub, i)).chain((hub + 1..services).map(|i| (i, hub))).collect()
}
