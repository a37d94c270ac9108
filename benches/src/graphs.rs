//! The edges of the registries that are measured.

/// A dependent and its dependency.
pub type Edge = (usize, usize);

/// Returns the edges between this number of services. Each service comes after its dependencies,
/// and a failure of the first service reaches the last one.
pub type Graph = fn(usize) -> Vec<Edge>;

pub const GRAPHS: [(&str, Graph); 4] =
    [("layered", layered), ("chain", chain), ("hub", hub), ("complete layers", complete_layers)];

/// The graphs in which a failure of the first service reaches all services. "Fan-out" is the graph
/// that `GRAPHS` names "hub".
pub const CASCADES: [(&str, Graph); 4] =
    [("chain", chain), ("fan-out", hub), ("layered", layered), ("diamonds", diamonds)];

/// A root and ten layers. Each service depends on one to three random services of the layer before
/// it; the services of the first layer depend on the root.
fn layered(services: usize) -> Vec<Edge> {
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
        // Each is chosen from another part of the layer, so that all are different.
        let parts = random.usize(1..=width.min(3));
        for part in 0..parts {
            let part = width * part / parts..width * (part + 1) / parts;
            edges.push((dependent, first + random.usize(part)));
        }
    }
    edges
}

/// Each service depends on the one before it.
pub fn chain(services: usize) -> Vec<Edge> {
    (1..services).map(|dependent| (dependent, dependent - 1)).collect()
}

/// Each service depends on the first one.
pub fn hub(services: usize) -> Vec<Edge> {
    (1..services).map(|dependent| (dependent, 0)).collect()
}

/// Layers of two services. Each service depends on both services of the layer before it, so the
/// number of paths doubles with each layer.
fn complete_layers(services: usize) -> Vec<Edge> {
    let both = |dependent: usize| {
        let before = dependent / 2 * 2;
        [(dependent, before - 2), (dependent, before - 1)]
    };
    (2..services).flat_map(both).collect()
}

/// One service, two that depend on it, one that depends on both of them, and so on.
fn diamonds(services: usize) -> Vec<Edge> {
    let dependencies = |dependent: usize| match dependent % 3 {
        0 => vec![(dependent, dependent - 2), (dependent, dependent - 1)],
        side => vec![(dependent, dependent - side)],
    };
    (1..services).flat_map(dependencies).collect()
}
