//! What the tests are made of: the balancer under test, mock servers, clients, a syslog receiver.
//!
//! Everything speaks to 127.0.0.0/8 or ::1 only and every wait has a bound. Nothing here sleeps for
//! a result: waits poll a condition or block on a socket with a timeout.

pub(crate) mod announcement;
pub(crate) mod balancer;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod control;
pub(crate) mod crowd;
pub(crate) mod datagram;
pub(crate) mod failures;
pub(crate) mod http;
pub(crate) mod networks;
pub(crate) mod port;
pub(crate) mod proxy_header;
pub(crate) mod runtime;
pub(crate) mod server;
pub(crate) mod sockets;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod sys;
pub(crate) mod syslog;
pub(crate) mod terminal;
pub(crate) mod turn;
pub(crate) mod variant;

pub(crate) use balancer::{Balancer, is_tidegate, skip};
pub(crate) use clock::{StopOnDrop, Stopwatch, eventually, wait_for};
pub(crate) use server::MockServer;
pub(crate) use syslog::Syslog;
