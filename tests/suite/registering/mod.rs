//! Registration: names, capacity, ids, sets of them, lists of services, and the types
//! of handles.

mod capacity;
mod foreign_ids;
mod handle_types;
mod lists;
mod names;
mod sets;
