//! Registration: names, capacity, ids and the types of handles.

mod capacity;
mod foreign_ids;
mod handle_types;
mod names;
