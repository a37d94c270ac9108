//! Registration: names, capacity, ids, sets of them, and the types of handles.

mod capacity;
mod foreign_ids;
mod handle_types;
mod names;
mod sets;
