//! What every implementation of the two seams must do.

mod broker;
