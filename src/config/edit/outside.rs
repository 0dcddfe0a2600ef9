//! The outside world of an edit.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::config::environment::{Environment, Options, Resolver};
use crate::config::plan::LocalPorts;

/// The outside world as it is while the program runs: no name is looked up and no file read.
pub(super) struct AtRuntime<'a> {
    outside: &'a dyn Environment,
    options: Options,
    /// The first name that was asked for.
    name: RefCell<Option<String>>,
}

impl<'a> AtRuntime<'a> {
    /// `options` = those that the files were read with.
    pub(super) fn new(outside: &'a dyn Environment, options: Options) -> AtRuntime<'a> {
        // A name without an address would be a server without one.
        let options = Options {
            ignore_resolution_failures: false,
            ..options
        };
        AtRuntime {
            outside,
            options,
            name: RefCell::default(),
        }
    }

    /// The first name that was asked for.
    pub(super) fn first_name(&self) -> Option<String> {
        self.name.borrow().clone()
    }
}

impl Resolver for AtRuntime<'_> {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        self.name
            .borrow_mut()
            .get_or_insert_with(|| host.to_owned());
        Err("no name is looked up for a command".to_owned())
    }
}

impl Environment for AtRuntime<'_> {
    fn options(&self) -> Options {
        self.options
    }

    fn local_peer(&self) -> String {
        self.outside.local_peer()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.outside.variable(name)
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        self.outside.user_id(name)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.outside.group_id(name)
    }

    fn local_addresses(&self) -> &[IpAddr] {
        self.outside.local_addresses()
    }

    fn local_ports(&self) -> LocalPorts {
        LocalPorts::default()
    }
}
