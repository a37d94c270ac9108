//! What a program can observe of a registry: the events, and the statuses of the services.

mod events;
mod statuses;
