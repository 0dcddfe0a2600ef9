//! Every value in every form.

use super::*;
use crate::config;
use crate::control::log::testing::{record_in, world_of};
use crate::control::resolve::SystemEnvironment;
use crate::shard::{Beyond, FlowPart, World};
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

const BY: Speaker<'static> = Speaker {
    host: "balancer.example",
    pid: 42,
    lines: 9,
};

/// A line of a record that was changed, in a frontend with these lines.
fn line_with(lines: &str, change: impl FnOnce(&mut SessionRecord, &World)) -> String {
    let world = world_of(&format!("    {lines}\n"), Vec::new());
    let mut record = record_in(&world);
    change(&mut record, &world);
    shown(&record)
}

fn shown(record: &SessionRecord) -> String {
    let mut out = Vec::new();
    let mut filler = Filler::new(LocalTime::with_zone(TimeZone::fixed(jiff::tz::offset(1))));
    filler.line(&mut out, record, BY);
    String::from_utf8(out).unwrap()
}

/// What a `log-format` makes of a record that was changed.
fn formed_with(format: &str, change: impl FnOnce(&mut SessionRecord, &World)) -> String {
    line_with(&format!("log-format '{format}'"), change)
}

fn formed(format: &str) -> String {
    formed_with(format, |_, _| {})
}

fn alone(record: &mut SessionRecord) {
    record.backend = None;
    record.server = None;
    record.redispatched = false;
    record.retries = 0;
    (record.queue_ms, record.connect_ms, record.total_ms) = (-1, -1, 0);
    record.termination = *b"SC";
}

fn of_unix(record: &mut SessionRecord, world: &World) {
    record.listener = world.plan.listeners[1].clone();
    (record.client, record.local) = (None, None);
}

#[test]
fn the_tcplog_line() {
    assert_eq!(
        line_with("option tcplog", |_, _| {}),
        "10.0.1.2:33313 [06/Feb/2009:13:12:09.443] fe bk/s1 0/5/5007 212 -- 1/2/3/4/+3 5/6"
    );
    let unix = line_with("option tcplog", |record, world| {
        alone(record);
        of_unix(record, world);
    });
    let expected = "unix:7 [06/Feb/2009:13:12:09.443] fe fe/<NOSRV> -1/-1/0 212 SC 1/2/3/4/0 5/6";
    assert_eq!(unix, expected);
    let asap = line_with("option tcplog\n option logasap", |_, _| {});
    assert!(asap.contains(" 0/5/+5007 +212 -- "), "{asap}");
}

#[test]
fn the_line_of_a_flow() {
    let text = "listen fe\n    mode udp\n    bind udp@10.0.0.1:53\n    option udplog\n    \
                log 127.0.0.1 local0\n    server s1 10.0.0.2:53\n";
    let (plan, said) = config::load_text("t.cfg", text, &SystemEnvironment::new());
    let of_flows = plan.unwrap_or_else(|| panic!("{said:?}")).proxies[0].clone();
    let world = world_of("", Vec::new());
    let mut record = record_in(&world);
    (record.retries, record.redispatched) = (0, false);
    (record.queue_ms, record.connect_ms, record.queued_before) = (0, 0, [0; 2]);
    record.flow = Some(FlowPart {
        requests: 2,
        replies: 3,
        reason: Reason::Idle,
    });
    let form = &of_flows.front.as_ref().unwrap().lines.line;
    let mut out = Vec::new();
    let mut filler = Filler::new(LocalTime::with_zone(TimeZone::UTC));
    filler.fill(&mut out, form, &record, BY);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "10.0.1.2:33313 [06/Feb/2009:12:12:09.443] fe bk/s1 0/0/5007 212 -- 1/2/3/4/0 0/0 7 2/3 idle"
    );
}

#[test]
fn the_line_at_accept() {
    assert_eq!(
        line_with("", |_, _| {}),
        "Connect from 10.0.1.2:33313 to 10.0.0.1:80 (fe/TCP)"
    );
    let six = line_with("", |record, _| {
        record.client = Some("[::1]:5".parse().unwrap());
        record.local = Some("[::ffff:10.0.0.1]:80".parse().unwrap());
    });
    assert_eq!(six, "Connect from ::1:5 to 10.0.0.1:80 (fe/TCP)");
    assert_eq!(line_with("", of_unix), "Connect to unix:7 (fe/TCP)");
}

#[test]
fn aliases() {
    for (format, expected) in [
        ("%ac/%fc/%bc/%sc %sq/%bq", "1/2/3/4 5/6"),
        ("%f %ft %b %s", "fe fe bk s1"),
        (
            "%ci %cp %fi %fp %si %sp %bi %bp",
            "10.0.1.2 33313 10.0.0.1 80 10.0.0.2 8080 - -",
        ),
        ("%Th %Tw %Tc %Td %Tt %Tu", "2 0 5 5000 5007 5007"),
        ("%B %U %ts %tsc %rc", "212 7 -- ---- +3"),
        (
            "%t|%Tl",
            "06/Feb/2009:13:12:09.443|06/Feb/2009:13:12:09 +0100",
        ),
        ("%T %Ts %ms", "06/Feb/2009:12:12:09 +0000 1233922329 443"),
        ("%H %pid %lc %rt %ID", "balancer.example 42 9 17 -"),
        ("%ST %sslv %sslc |%hr|%hrl|%hs|%hsl|", "0 - - |||||"),
        ("100%% %f", "100% fe"),
    ] {
        assert_eq!(formed(format), expected, "{format}");
    }
}

#[test]
fn flags_as_haproxy_has_them() {
    for (format, expected) in [
        (
            "%{+Q}o %f %ci %cp %B %t %ID %H",
            "\"fe\" \"10.0.1.2\" 33313 212 \
          06/Feb/2009:13:12:09.443 \"\" \"balancer.example\"",
        ),
        (
            "%{+X}o %ci:%cp_%fi:%fp_%Ts_%rt:%pid %ms %lc %ac %B",
            "0A000102:8221_0A000001:0050_498C2919_0011:002A 1BB 0009 1 212",
        ),
        (
            "%{+Q}[src_port] %{+X}[src] %{+Q}[str()] %[str()]",
            "\"33313\" 10.0.1.2 \"\" -",
        ),
        ("%{+E}[str(\"a]b\")] %{+E}f", "a\\]b fe"),
        ("%{+json}f %{+json}cp %{+json}ID", "\"fe\" 33313 null"),
    ] {
        assert_eq!(formed(format), expected, "{format}");
    }
}

#[test]
fn expressions() {
    for (format, expected) in [
        (
            "%[src] %[src_port] %[dst] %[dst_port]",
            "10.0.1.2 33313 10.0.0.1 80",
        ),
        (
            "%[src,ipmask(8)] %[dst_port,add(1)] %[src,crc32]",
            "10.0.0.0 81 3119279893",
        ),
        (
            "%[fe_name] %[fe_id] %[be_name] %[be_id] %[srv_name] %[srv_id]",
            "fe 2 bk 3 s1 1",
        ),
        ("%[so_id] %[so_name] %[bytes_in] %[bytes_out]", "1 in 7 212"),
        (
            "%[str(a)] %[int(-3)] %[bool(true)] %[always_false]",
            "a -3 1 0",
        ),
        ("%[fc_err] %[fc_err_str]", "0 Success"),
        (
            "%[bc_dst]:%[bc_dst_port] %[bc_src] %[fc_pp_authority]",
            "10.0.0.2:8080 - -",
        ),
    ] {
        assert_eq!(formed(format), expected, "{format}");
    }
    let nowhere = formed_with(
        "%[be_name] %[be_id] %[srv_name] %[srv_id] %[so_name]",
        |r, w| {
            alone(r);
            of_unix(r, w);
        },
    );
    assert_eq!(nowhere, "- - - - -");
    assert_eq!(
        formed_with("%[src] %[dst_port] %ci %cp %fi %fp", of_unix),
        "- - unix 7 unix 7"
    );
}

#[test]
fn what_is_kept_only_for_lines_that_show_it() {
    let mut tlvs = vec![tlv::AUTHORITY, 0, 8];
    tlvs.extend(b"a\n\"b#\xff c");
    let beyond = |record: &mut SessionRecord, _: &World| {
        record.beyond = Some(Box::new(Beyond {
            source: Some("10.0.0.9:1234".parse().unwrap()),
            tlvs: Some(tlvs.into()),
        }));
    };
    let format = "%bi:%bp %{+Q}[fc_pp_authority] %[fc_pp_tlv(0x02)] %[fc_pp_tlv(5)]";
    assert_eq!(
        formed_with(format, beyond),
        "10.0.0.9:1234 \"a#0A#22b#23#FF c\" a#0A#22b#23#FF c -"
    );
}

#[test]
fn ids_have_a_form_of_their_own() {
    let lines = "unique-id-format %{+X}o%ci-%rt\n    log-format '%ID %{+Q}[unique-id]'";
    assert_eq!(
        line_with(lines, |_, _| {}),
        "0A000102-0011 \"0A000102-0011\""
    );
    let own = "unique-id-format %ID\n    log-format %ID";
    assert_eq!(line_with(own, |_, _| {}), "-");
}

#[test]
fn a_json_object_of_what_has_a_name() {
    let format = "%{+json}o ignored %(client)ci %(port)cp %f %(up)U %(total)Tt %(id)ID %(end)ts \
                  %(again)rc %(date)t %{+X}(hex)cp %(text:str)B %(flag:bool)rc %(c)[str(\"\"]\")]";
    let format = format.replace("[str(\"\"]\")]", "[str(\"a\\\"b\")]");
    let line = formed(&format);
    let parsed: Json = serde_json::from_str(&line).expect(&line);
    let expected = json!({
        "client": "10.0.1.2", "port": 33313, "up": 7, "total": 5007, "id": null, "end": "--",
        "again": 3, "date": "06/Feb/2009:13:12:09.443", "hex": "8221", "text": "212",
        "flag": true, "c": "a\"b",
    });
    assert_eq!(parsed, expected);
    assert!(
        line.starts_with("{\"client\": \"10.0.1.2\", \"port\": 33313, "),
        "{line}"
    );
    assert_eq!(formed("%{+json}o %ci"), "{}");
}

#[test]
fn structured_data_stands_before_the_line() {
    let structured = |lines: &str, refused| {
        let world = world_of(&format!("    {lines}\n"), Vec::new());
        let mut record = record_in(&world);
        record.refused = refused;
        let mut out = Vec::new();
        let mut filler = Filler::new(LocalTime::with_zone(TimeZone::UTC));
        filler.structured(&mut out, &record, BY);
        String::from_utf8(out).unwrap()
    };
    let form = "log-format-sd '%{+Q,+E}o [ex@1 client=%ci front=%f]'";
    let expected = "[ex@1 client=\"10.0.1.2\" front=\"fe\"]";
    assert_eq!(
        structured(&format!("option tcplog\n    {form}"), None),
        expected
    );
    // Neither the short line nor a refusal has any, as with HAProxy.
    assert_eq!(structured(form, None), "");
    let refused = Some(Refusal::Closed);
    assert_eq!(
        structured(&format!("option tcplog\n    {form}"), refused),
        ""
    );
}

#[test]
fn the_line_of_a_refused_connection() {
    let refused = |lines, refusal, unix| {
        line_with(lines, |record, world| {
            record.refused = Some(refusal);
            alone(record);
            record.termination = *b"PR";
            if unix {
                of_unix(record, world);
            }
            assert!(!record.is_normal());
        })
    };
    assert_eq!(
        refused("option tcplog", Refusal::NotProxy, false),
        "10.0.1.2:33313 [06/Feb/2009:13:12:09.443] fe/in: Received something which does not look \
         like a PROXY protocol header"
    );
    // Neither has a name or an address.
    assert_eq!(
        refused("log-format %f", Refusal::TimedOut { began: false }, true),
        "unix:7 [06/Feb/2009:13:12:09.443] fe/7: Timeout while waiting for PROXY protocol header"
    );
    let form = "error-log-format '%ci %f %b %s %ts %[fc_err] %{+Q}[fc_err_str]'";
    assert_eq!(
        refused(form, Refusal::CutOff, false),
        "10.0.1.2 fe fe <NOSRV> PR 14 \"Truncated PROXY protocol header received\""
    );
}
