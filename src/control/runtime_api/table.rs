//! The table of `show stat`: its columns, and a row that is filled by column names.

use crate::config::plan::Proxy;

/// HAProxy's static columns. A `-` ends them; behind it HAProxy has those of its modules, as they
/// were built in, and readers that know their columns by position have stopped before.
const STATIC: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,\
eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,\
throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,\
hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,\
srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,\
agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,\
agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,\
intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,\
ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,\
agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,h1sess,h2sess,h3sess,\
req_other,h1req,h2req,h3req,proto,priv_idle_cur,reqbin,reqbout,resbin,resbout,cache_hint_hits";

/// Our columns behind it.
const OWN: &str = "udp_datagrams_in,udp_datagrams_out";

/// All columns, in their order.
fn columns() -> impl Iterator<Item = &'static str> {
    let own = std::iter::once("-").chain(OWN.split(','));
    STATIC.split(',').chain(own)
}

/// The first line.
pub(in crate::control) fn header() -> String {
    format!("# {STATIC},-,{OWN},\n")
}

/// Where a column stands.
pub(in crate::control) fn place(column: &str) -> Option<usize> {
    columns().position(|name| name == column)
}

/// One line of the table.
pub(in crate::control) struct Row {
    values: Vec<String>,
}

impl Row {
    pub(super) fn new(proxy: &Proxy, name: &str, kind: u8, sid: u32) -> Row {
        let mut row = Row {
            values: vec![String::new(); columns().count()],
        };
        row.set("-", "-");
        row.set("pxname", &*proxy.name);
        row.set("svname", name);
        row.set("type", kind);
        row.set("pid", 1);
        row.set("iid", proxy.iid);
        row.set("sid", sid);
        row.set("mode", proxy.mode());
        row
    }

    /// Sets a column by its name; the tests make sure that every name used here exists.
    pub(super) fn set(&mut self, column: &str, value: impl ToString) {
        let index = place(column);
        debug_assert!(index.is_some(), "no column {column}");
        if let Some(cell) = index.and_then(|index| self.values.get_mut(index)) {
            *cell = value.to_string();
        }
    }

    /// What a column has; empty = nothing.
    pub(in crate::control) fn value(&self, column: &str) -> &str {
        self.at(place(column))
    }

    /// The same of the column at a [`place`].
    pub(in crate::control) fn at(&self, place: Option<usize>) -> &str {
        place
            .and_then(|index| self.values.get(index))
            .map_or("", |value| value)
    }

    pub(in crate::control) fn write(self, out: &mut String) {
        for value in self.values {
            if value.contains(['"', ',', '\r', '\n']) {
                out.push('"');
                out.push_str(&value.replace('"', "\"\""));
                out.push('"');
            } else {
                out.push_str(&value);
            }
            out.push(',');
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_its_columns_at_their_places() {
        let names: Vec<&str> = columns().collect();
        assert_eq!(names.len(), 119 + 3);
        assert_eq!(header(), format!("# {},\n", names.join(",")));
        for (index, name) in [
            (0, "pxname"),
            (17, "status"),
            (32, "type"),
            (36, "check_status"),
            (73, "addr"),
            (89, "src_ilim"),
            (100, "agg_server_status"),
            (105, "h1sess"),
            (118, "cache_hint_hits"),
            (119, "-"),
            (120, "udp_datagrams_in"),
        ] {
            assert_eq!(names[index], name);
        }
    }

    #[test]
    fn a_value_with_a_comma_is_quoted() {
        let mut out = String::new();
        Row {
            values: vec!["a,\"b".to_owned(), "c".to_owned()],
        }
        .write(&mut out);
        assert_eq!(out, "\"a,\"\"b\",c,\n");
    }
}
