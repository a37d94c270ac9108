//! What one would use in mainstay's place, and the floors that nothing can be below.

pub mod container;
pub mod floor;
pub mod go_service;
pub mod limits;
pub mod locked_graph;
pub mod maps;
pub mod read_cells;
pub mod token_tree;
pub mod watch_tree;
