//! From the command line to a loaded configuration.

use crate::config::diagnostics::Severity;
use crate::config::plan::Plan;
use crate::config::{self, Diagnostic};
use crate::control::messages::format;
use crate::control::reload::Loader;
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

/// Reads the same files again, for a reload: as at the start, warnings are errors where that was
/// asked for.
pub(super) fn loader(options: &Options) -> Loader {
    let options = options.clone();
    Loader::new(move || {
        let pid = std::process::id();
        let alert = |text: &str| vec![format(Severity::Alert, text)];
        let loaded = load(&options).map_err(|text| alert(&format!("config : {text}")))?;
        let warned = loaded.is_warned();
        let lines = loaded.diagnostics.iter();
        let mut lines: Vec<String> = lines.map(|one| one.format(pid).to_string()).collect();
        let Some(plan) = loaded.plan else {
            return Err(lines);
        };
        if warned && (options.warnings_fatal || plan.global.process.zero_warning) {
            let text = "config : Some warnings were found and 'zero-warning' is set.";
            lines.extend(alert(text));
            return Err(lines);
        }
        if !plan.has_listener() {
            lines.extend(alert("No listener: there is nothing to do."));
            return Err(lines);
        }
        Ok((plan, lines))
    })
}
