//! The alternatives to mainstay, and the floors: the least that each operation can cost.

pub mod container;
pub mod floor;
pub mod go_service;
pub mod limits;
pub mod locked_graph;
pub mod maps;
pub mod read_cells;
pub mod token_tree;
pub mod watch_tree;
