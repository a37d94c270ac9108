//! What one would use in mainstay's place, and the floors that nothing can be below.
