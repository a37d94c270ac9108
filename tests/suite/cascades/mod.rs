//! What a cascade moves and what it leaves alone, and what is left behind when it is over.

mod abandoned_values_removed;
mod down_services_left_alone;
mod exact_instance_reported;
mod several_roots_fail_together;
