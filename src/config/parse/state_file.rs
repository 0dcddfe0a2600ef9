//! The words about state files: where servers' state is read from at a start.

use super::{Call, Outcome, Parser};
use crate::config::draft::StateSource;

/// `server-state-file` and `server-state-base`.
pub(in crate::config) fn place(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let (slot, what) = match name {
        "server-state-file" => (&mut parser.draft.server_state_file, "file"),
        _ => (&mut parser.draft.server_state_base, "directory"),
    };
    if call.arg(0).is_empty() {
        return Err(format!("'{name}' expects one argument: a {what} path.").into());
    }
    if slot.is_some() {
        let text = format!("'{name}' already specified. Continuing.");
        parser
            .report
            .warning(&call.line.place, call.line.words.first(), text);
        return Ok(());
    }
    *slot = Some(call.arg(0).to_owned());
    Ok(())
}

/// `load-server-state-from-file`
pub(in crate::config) fn source(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.current.settings.state_source = match call.arg(0) {
        "global" => StateSource::Global,
        "local" => StateSource::Local,
        "none" => StateSource::None,
        got => {
            let text = format!(
                "'load-server-state-from-file' expects 'global', 'local' or 'none'. Got '{got}'"
            );
            return Err(call.complain(0, text));
        }
    };
    Ok(())
}

/// `server-state-file-name`
pub(in crate::config) fn name(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.current.settings.state_file_name = match call.arg(0) {
        "" | "use-backend-name" => None,
        name => Some(name.to_owned()),
    };
    Ok(())
}
