//! From the command line to a loaded configuration.

use crate::config::diagnostics::Severity;
use crate::config::plan::Plan;
use crate::config::{self, Diagnostic};
use crate::control::resolve::{SystemEnvironment, config_files};

use super::flags::Options;

/// A configuration that was read, and what there is to say about it.
pub(super) struct Loaded {
    /// `None` after an error.
    pub(super) plan: Option<Plan>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether there are warnings.
    pub(super) fn is_warned(&self) -> bool {
        let mut diagnostics = self.diagnostics.iter();
        diagnostics.any(|diagnostic| diagnostic.severity == Severity::Warning)
    }
}

/// What the configuration sees of the system and of the command line.
pub(super) fn environment(options: &Options) -> SystemEnvironment {
    let environment = SystemEnvironment::new().with_options(config::Options {
        ignore_resolution_failures: options.ignore_resolution_failures,
        ipv4_only: options.ipv4_only,
        diagnose: options.diagnose,
        proxy_maxconn: options.proxy_maxconn,
    });
    match &options.local_peer {
        Some(name) => environment.with_local_peer(name),
        None => environment,
    }
}

/// Reads the files.
pub(super) fn load(options: &Options) -> Result<Loaded, String> {
    let files = config_files(&options.files)?;
    let environment = environment(options);
    let (mut plan, mut diagnostics) = config::load(&files, &environment);
    if let Some(plan) = &mut plan {
        plan.global.noreuseport |= options.no_reuseport;
        plan.global.splice &= !options.no_splice;
    }
    if let (Some(plan), Some(text)) = (&mut plan, &options.master_socket) {
        match config::master_socket(text, &environment) {
            Ok(socket) => plan.global.stats_sockets.push(socket),
            Err(fault) => diagnostics.push(fault),
        }
    }
    let plan = plan.filter(|_| !diagnostics.iter().any(Diagnostic::is_fatal));
    Ok(Loaded { plan, diagnostics })
}
