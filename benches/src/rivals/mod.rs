//! What one would use in mainstay's place, and the floors that nothing can be below.

pub mod container;
pub mod go_service;
pub mod maps;
pub mod read_cells;
