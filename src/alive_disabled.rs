//! Replaces `alive.rs` without the feature `supervise`: no operation asks for the holders of an
//! instance.

pub(crate) struct DropNotice;
