//! From a request to its answer.
//!
//! In HAProxy's order: `monitor-uri`, then the rules for metrics, then the page of statistics.
//! Nothing else is there (404). What a request holds beyond its first line and two headers is not
//! looked at.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, REFRESH,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::exposition::{self, Format};
use super::query::Query;
use super::{Site, pages_of};
use super::{rows, statistics};
use crate::config::plan::StatsPage;

/// How long a request waits for room for its answer.
const ROOM: Duration = Duration::from_secs(1);

/// A body, which gives its room back when it has been sent or the client is gone.
#[derive(Debug)]
pub(super) struct Text {
    bytes: Full<Bytes>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Body for Text {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.bytes).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.size_hint()
    }
}

/// The answer to a request of the client at `source`.
pub(super) async fn answer<B>(
    site: &Site,
    request: &Request<B>,
    source: Option<IpAddr>,
) -> Response<Text> {
    let front = site.front();
    let Some(pages) = pages_of(&front) else {
        return short(StatusCode::NOT_FOUND, "Not found.");
    };
    let uri = request.uri();
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let asked = uri.path_and_query().map_or(path, |both| both.as_str());
    if pages.monitor_uri.as_deref() == Some(asked) {
        return match site.shared.is_stopping() {
            true => short(StatusCode::SERVICE_UNAVAILABLE, "Service is stopping."),
            false => short(StatusCode::OK, "Service ready."),
        };
    }
    let is_metrics = pages.exporters.iter().any(|rule| rule.holds(path, source));
    let statistics = pages
        .stats
        .as_ref()
        .filter(|page| asked.starts_with(&page.uri));
    if !is_metrics && statistics.is_none() {
        return short(StatusCode::NOT_FOUND, "There is no such page.");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = short(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are.");
        return with(answer, ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    match statistics {
        _ if is_metrics => metrics(site, query, request.headers()).await,
        Some(page) => table(site, page, asked, request.headers()).await,
        None => short(StatusCode::NOT_FOUND, "There is no such page."),
    }
}

async fn metrics(site: &Site, query: &str, headers: &HeaderMap) -> Response<Text> {
    let Some(query) = Query::read(query) else {
        return short(StatusCode::BAD_REQUEST, "The parameters can't be followed.");
    };
    let Some(room) = room(site).await else {
        return busy();
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match exposition::render(&site.shared, query, format) {
        Ok(text) => long(text, format.content_type(), room),
        Err(_) => short(StatusCode::INTERNAL_SERVER_ERROR, "It can't be written."),
    }
}

async fn table(site: &Site, page: &StatsPage, asked: &str, headers: &HeaderMap) -> Response<Text> {
    if !page.logins.is_empty() && !may_see(page, headers) {
        let answer = short(StatusCode::UNAUTHORIZED, "A login is needed.");
        let realm = page.realm.replace(['"', '\\'], "");
        let challenge = HeaderValue::from_str(&format!("Basic realm=\"{realm}\""));
        let basic = HeaderValue::from_static("Basic realm=\"statistics\"");
        return with(answer, WWW_AUTHENTICATE, challenge.unwrap_or(basic));
    }
    let Some(room) = room(site).await else {
        return busy();
    };
    let words = asked.strip_prefix(page.uri.as_str()).unwrap_or_default();
    let has = |wanted: &str| words.split([';', '&', '?']).any(|word| word == wanted);
    let own = &site.front().proxy;
    let objects = rows::objects(&site.shared, |proxy| page.shows(&proxy.name, &own.name));
    let answer = if has("csv") {
        long(rows::csv(objects), "text/plain", room)
    } else {
        let text = statistics::page(&site.shared, page, &objects);
        long(text, "text/html; charset=utf-8", room)
    };
    if page.refresh_s == 0 || has("norefresh") {
        return answer;
    }
    with(answer, REFRESH, HeaderValue::from(page.refresh_s))
}

/// Whether a request has one of the logins. All of them are compared in full, whatever is found.
fn may_see(page: &StatsPage, headers: &HeaderMap) -> bool {
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let Some((scheme, given)) = given else {
        return false;
    };
    let is = |login: &String| {
        let wanted = STANDARD.encode(login);
        let given = given.trim().as_bytes();
        let pairs = wanted.bytes().zip(given);
        let differences = pairs.fold(0, |found, (a, b)| found | (a ^ b));
        differences == 0 && wanted.len() == given.len()
    };
    let found = page
        .logins
        .iter()
        .fold(false, |found, login| found | is(login));
    found && scheme.eq_ignore_ascii_case("basic")
}

async fn room(site: &Site) -> Option<OwnedSemaphorePermit> {
    let room = Arc::clone(&site.answers).acquire_owned();
    tokio::time::timeout(ROOM, room).await.ok()?.ok()
}

fn busy() -> Response<Text> {
    let text = "Too many answers are under way.";
    let answer = short(StatusCode::SERVICE_UNAVAILABLE, text);
    with(answer, RETRY_AFTER, HeaderValue::from(1))
}

fn with(mut answer: Response<Text>, name: HeaderName, value: HeaderValue) -> Response<Text> {
    answer.headers_mut().insert(name, value);
    answer
}

fn long(text: String, kind: &'static str, room: OwnedSemaphorePermit) -> Response<Text> {
    let bytes = Full::new(Bytes::from(text));
    let mut answer = Response::new(Text {
        bytes,
        _room: Some(room),
    });
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// A status and what there is to say of it, as HAProxy words its own pages.
fn short(status: StatusCode, text: &str) -> Response<Text> {
    let reason = status.canonical_reason().unwrap_or_default();
    let number = status.as_u16();
    let text = format!("<html><body><h1>{number} {reason}</h1>\n{text}\n</body></html>\n");
    let mut answer = Response::new(Text {
        bytes: Full::new(Bytes::from(text)),
        _room: None,
    });
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}
