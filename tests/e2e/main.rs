//! End-to-end tests: the real program between mock servers and clients, one behaviour per test.
//!
//! Each test starts a balancer of its own with ports of its own and ends with `settle`, which fails
//! if anything of a past session is left. Set `TIDEGATE_BIN` to run them against another program
//! that reads the same config; see `support::balancer`.

mod accept_queue;
mod agent;
mod backups;
mod balancing;
mod check_programs;
mod check_scripts;
mod check_together;
mod checks;
mod cli;
mod closing;
mod endings;
mod endpoints;
mod failover;
mod hand_over;
mod health;
mod integrity;
mod kernel;
mod lifecycle;
mod limits;
mod listeners;
mod listeners_on_interfaces;
mod listeners_shared;
mod log_formats;
mod logging;
mod memory;
mod passive;
mod ports;
mod privileges;
mod programs;
mod proxy_protocol;
mod proxy_protocol_programs;
mod proxy_protocol_refused;
mod proxy_protocol_seams;
mod rsyslog;
mod runtime_socket;
mod scenarios;
mod send_proxy;
mod short_sessions;
mod slow_readers;
mod slow_start;
mod source_ports;
mod sources;
mod splice;
mod splice_ends;
mod splice_options;
mod splice_under_load;
mod spread;
mod supervision;
mod support;
mod take_over;
mod timeouts;
mod toml;
mod transparent;
mod udp;
mod udp_checks;
mod udp_flows;
mod udp_keys;
mod udp_programs;
mod unavailable;
mod waking;
