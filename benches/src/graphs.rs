//! Who depends on whom in a registry of many services.

/// A dependent and its dependency.
pub type Edge = (usize, usize);

/// The edges among a number of services: each comes after its dependencies, and a failure of the first reaches
/// the last.
pub type Graph = fn(usize) -> Vec<Edge>;

pub const GRAPHS: [(&str, Graph); 4] =
    [("layered", layered), ("chain", chain), ("hub", hub), ("complete layers", complete_layers)];

/// Those in which a failure of the first reaches all.
pub const CASCADES: [(&str, Graph); 4] =
    [("chain", chain), ("fan-out", hub), ("layered", layered), ("diamonds", diamonds)];

/// A root and ten layers; each service depends on one to three of the layer before it, chosen at random, those of
/// the first layer on the root.
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
        // Each in a part of its own of the layer, so that none is chosen twice.
        let parts = random.usize(1..=width.min(3));
        for part in 0..parts {
            let part = width * part / parts..width * (part + 1) / parts;
            edges.push((dependent, first + random.usize(part)));
        }
    }
    edges
}

pub fn chain(services: usize) -> Vec<Edge> {
    (1..services).map(|dependent| (dependent, dependent - 1)).collect()
}

pub fn hub(services: usize) -> Vec<Edge> {
    (1..services).map(|dependent| (dependent, 0)).collect()
}

/// Layers of two, each service of which depends on both of the layer before: twice as many ways to a service
/// with each layer.
fn complete_layers(services: usize) -> Vec<Edge> {
    let both = |dependent: usize| {
        let before = dependent / 2 * 2;
        [(dependent, before - 2), (dependent, before - 1)]
    };
    (2..services).flat_map(both).collect()
}

/// One, two that depend on it, one that depends on both, and so on.
fn diamonds(services: usize) -> Vec<Edge> {
    let below = |dependent: usize| match dependent % 3 {
        0 => vec![(dependent, dependent - 2), (dependent, dependent - 1)],
        side => vec![(dependent, dependent - side)],
    };
    (1..services).flat_map(below).collect()
}
