//! Dependencies between services: discovered and declared edges, their kinds, and cycles.

mod any_type;
mod built_from_recorded;
mod cycles;
mod declared_kinds;
mod discovered;
mod kinds;
mod unused_waits_leave_none;
