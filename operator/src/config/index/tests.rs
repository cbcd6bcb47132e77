//! The index as its users see it: objects in, statuses out. No API server, no clock.

mod judging;
mod last_good;
mod programmed;
mod site;
mod writing;
