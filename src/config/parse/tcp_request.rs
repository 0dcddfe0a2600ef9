//! `tcp-request`: rules for new connections.

use super::acl::condition;
use super::balance::needed;
use super::{Call, Outcome, Parser};
use crate::config::draft::Mode;
use crate::config::raw::SectionKind;

const EXPECT_PROXY: &str = "'tcp-request connection expect-proxy'";

pub(in crate::config) fn tcp_request(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if parser.mode == Mode::Udp {
        return Err("'tcp-request' is about connections, and there are none in 'mode udp'.".into());
    }
    match (call.arg(0), call.arg(1)) {
        ("connection", "expect-proxy") => {}
        ("connection", action) => {
            let text = needed(&format!("'tcp-request connection {action}'"));
            return Err(call.complain(1, text));
        }
        (level, _) => {
            let text = needed(&format!("'tcp-request {level}'"));
            return Err(call.complain(0, text));
        }
    }
    let name = &parser.current.name;
    match parser.kind {
        SectionKind::Backend => {
            let text = format!(
                "'tcp-request connection' is not allowed because backend '{name}' is not a \
                 frontend"
            );
            return Err(call.complain(0, text));
        }
        SectionKind::Defaults if name.is_empty() => {
            let text = "'tcp-request connection' is not allowed in anonymous 'defaults' sections";
            return Err(call.complain(0, text));
        }
        SectionKind::Global
        | SectionKind::Defaults
        | SectionKind::Frontend
        | SectionKind::Listen => {}
    }
    if call.arg(2) != "layer4" {
        let text = format!(
            "{EXPECT_PROXY} only supports 'layer4' in {} '{name}' (got '{}')",
            parser.kind.name(),
            call.arg(2)
        );
        return Err(call.complain(2, text));
    }
    let words = call.args.get(3..).unwrap_or_default();
    let condition = condition(parser, EXPECT_PROXY, words)?;
    parser.current.settings.expect_proxy.push(condition);
    Ok(())
}
