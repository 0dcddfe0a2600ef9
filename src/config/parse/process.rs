//! Keywords of the `global` section about the process itself: who it is, where it is confined,
//! what it may open, how it ends.

use std::path::{Path, PathBuf};

use super::{Call, Outcome, Parser};
use crate::config::plan::Jail;
use crate::config::raw::Prefix;
use crate::config::values::units;

/// `user`, `uid`, `group`, `gid`. The first counts.
pub(in crate::config) fn user(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let (name, value) = (call.keyword.name, call.arg(0));
    let is_user = matches!(name, "user" | "uid");
    let id = match name {
        "user" => parser.environment.user_id(value),
        "group" => parser.environment.group_id(value),
        _ => units::integer(value, u64::from(u32::MAX - 1)).and_then(|id| u32::try_from(id).ok()),
    };
    let Some(id) = id else {
        let text = match name {
            "user" => format!("cannot find user id for '{value}'"),
            "group" => format!("cannot find group id for '{value}'"),
            _ => format!("'{name}' : '{value}' is not a number."),
        };
        return Err(call.complain(0, text));
    };
    let process = &mut parser.draft.global.process;
    let (slot, what) = if is_user {
        (&mut process.user_id, "user/uid")
    } else {
        (&mut process.group_id, "group/gid")
    };
    if *slot.get_or_insert(id) != id {
        let text = format!("{what} already specified. Continuing.");
        let word = call.line.words.first();
        parser.report.warning(&call.line.place, word, text);
    }
    Ok(())
}

pub(in crate::config) fn chroot(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if parser.draft.global.process.chroot.is_some() {
        let text = "'chroot' already specified. Continuing.";
        let word = call.line.words.first();
        parser.report.warning(&call.line.place, word, text);
        return Ok(());
    }
    let jail = match call.arg(0) {
        "" => return Err("'chroot' expects a directory as an argument.".into()),
        "auto" => Jail::Auto,
        path if Path::new(path).is_absolute() => Jail::Directory(PathBuf::from(path)),
        path => {
            let text = format!("'chroot' : the path has to be absolute (got '{path}').");
            return Err(call.complain(0, text));
        }
    };
    parser.draft.global.process.chroot = Some(jail);
    Ok(())
}

/// `ulimit-n`, `fd-hard-limit`.
pub(in crate::config) fn descriptors(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let Some(number) = units::integer(call.arg(0), u64::from(u32::MAX)) else {
        return Err(call.complain(0, format!("'{name}' expects an integer argument.")));
    };
    let process = &mut parser.draft.global.process;
    // 0 is what holds without the line.
    let number = Some(number).filter(|number| *number > 0);
    match name {
        "ulimit-n" => process.descriptors = number,
        _ => process.descriptors_max = number,
    }
    Ok(())
}

/// `strict-limits`, `zero-warning`, `quiet`.
pub(in crate::config) fn flag(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let process = &mut parser.draft.global.process;
    match call.keyword.name {
        "strict-limits" => process.strict_limits = call.line.prefix != Prefix::No,
        "zero-warning" => process.zero_warning = true,
        _ => process.quiet = true,
    }
    Ok(())
}

pub(in crate::config) fn master_worker(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if !matches!(call.arg(0), "" | "no-exit-on-failure") {
        let text = format!(
            "'master-worker' only supports 'no-exit-on-failure' option (got '{}').",
            call.arg(0)
        );
        return Err(call.complain(0, text));
    }
    parser.draft.global.process.master_worker = true;
    Ok(())
}

pub(in crate::config) fn node(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.arg(0);
    let permitted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(permitted) {
        let text = "'node' expects a name of letters, digits, '-', '_' and '.'.";
        return Err(call.complain(0, text));
    }
    parser.draft.global.process.node = name.to_owned();
    Ok(())
}

pub(in crate::config) fn description(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'description' expects a text as an argument.".into());
    }
    let words: Vec<&str> = call.args.iter().map(|word| word.text.as_str()).collect();
    parser.draft.global.process.description = words.join(" ");
    Ok(())
}
