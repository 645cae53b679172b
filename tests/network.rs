//! Between rowmill and the endpoint: proxies, compressed answers, redirects.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::support::proxy::Proxy;
use crate::support::server::{Call, Reply, Server, answer_to, shapes};
use crate::support::{Bench, CANARY, Ended, rows};

const ASK: &str = "run in.jsonl -o out.jsonl --id-field id -p {{text}} --overwrite";

fn ask(bench: &Bench, model: &str, url: &str) -> Ended {
    bench.run(&format!("{ASK} -m {model} --base-url {url}"))
}

fn request_lines() -> String {
    let line = |n| {
        json!({"custom_id": n, "method": "POST", "url": "/v1/chat/completions",
               "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}})
        .to_string()
    };
    format!("{}\n{}\n", line("a"), line("b"))
}

/// `http://127.0.0.1:PORT` of a server.
fn origin(server: &Server) -> String {
    server.url().trim_end_matches("/v1").to_owned()
}

#[test]
fn http_proxy_takes_calls_lists_and_inputs() {
    let proxy = Server::start(|call| match call.path.as_str() {
        "http://data.invalid/in.jsonl" => Reply::body(rows(3)),
        "http://llm.invalid:81/v1/models" => {
            Reply::body(json!({"data": [{"id": "m1"}]}).to_string())
        }
        _ => Reply::Answer(answer_to(&call.prompt)),
    });
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        let mut bench = Bench::new();
        bench.set(variable, &origin(&proxy).replace("://", "://user:p%40ss@"));
        bench.run("models --base-url http://llm.invalid:81/v1").expect(0);
        let ended = bench.run(
            "run http://data.invalid/in.jsonl -o out.jsonl --id-field id -p {{text}} -m m \
             --base-url http://llm.invalid:81/v1",
        );
        ended.expect(0);
        bench.assert_answers(3);
    }
    let calls = proxy.calls();
    let paths: Vec<_> = calls.iter().map(|call| call.path.as_str()).collect();
    assert!(paths.contains(&"http://llm.invalid:81/v1/chat/completions"), "{paths:?}");
    for call in &calls {
        assert_eq!(call.headers["proxy-authorization"], "Basic dXNlcjpwQHNz", "{}", call.path);
    }
    let call = calls.last().unwrap();
    assert_eq!(call.headers["host"], "llm.invalid:81");
}

#[test]
fn https_goes_through_a_tunnel() {
    let (server, pem) = Server::start_tls(|call| Reply::Answer(answer_to(&call.prompt)));
    for (variable, scheme) in
        [("https_proxy", "http://u:p@"), ("ALL_PROXY", ""), ("all_proxy", "socks5h://")]
    {
        let proxy = Proxy::to(server.port());
        let mut bench = Bench::with_rows(3);
        bench.write("roots.pem", &pem);
        bench.set("SSL_CERT_FILE", bench.path("roots.pem").to_str().unwrap());
        bench.set(variable, &format!("{scheme}127.0.0.1:{}", proxy.port()));
        ask(&bench, "m", "https://localhost/v1").expect(0);
        bench.assert_answers(3);
        let asked = proxy.asked();
        assert!(!asked.is_empty());
        for head in asked {
            let begin = if scheme.starts_with("socks") { "socks" } else { "CONNECT" };
            assert!(head.starts_with(&format!("{begin} localhost:443")), "{head}");
            let has_password = head.contains("Proxy-Authorization: Basic dTpw");
            assert_eq!(has_password, scheme.contains("u:p"), "{head}");
            assert!(!head.contains(CANARY), "{head}");
        }
    }
}

#[test]
fn plain_websocket_goes_through_a_tunnel() {
    let server = Server::echo();
    let (proxy, mut bench) = (Proxy::to(server.port()), Bench::with_rows(3));
    bench.set("http_proxy", &format!("http://127.0.0.1:{}", proxy.port()));
    ask(&bench, "responses.m?transport=ws", "http://llm.invalid/v1").expect(0);
    bench.assert_answers(3);
    assert!(proxy.asked()[0].starts_with("CONNECT llm.invalid:80"), "{:?}", proxy.asked());
}

#[test]
fn no_proxy_hosts_are_reached_directly() {
    let (server, proxy) = (Server::echo(), Server::echo());
    for no_proxy in ["127.0.0.1", "*", "example.com, 127.0.0.0/8"] {
        let mut bench = Bench::with_rows(2);
        bench.set("http_proxy", &origin(&proxy));
        bench.set("no_proxy", no_proxy);
        ask(&bench, "m", &server.url()).expect(0);
    }
    assert_eq!((proxy.count(), server.count()), (0, 6));
    // As with curl, nothing else is left out: not this machine either.
    let mut bench = Bench::with_rows(2);
    bench.set("http_proxy", &origin(&proxy));
    ask(&bench, "m", &server.url()).expect(0);
    assert_eq!((proxy.count(), server.count()), (2, 6));
}

#[test]
fn proxy_that_fails_is_named_without_its_password() {
    let mut bench = Bench::with_rows(2);
    bench.set("https_proxy", "http://user:geheim@127.0.0.1:9");
    let ended = bench.run(&format!("{ASK} -m m --base-url https://llm.invalid/v1 --max-outage 0"));
    let ended = ended.expect(69).says("llm.invalid through the proxy http://127.0.0.1:9");
    assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
    bench.set("https_proxy", "https://user:geheim@p");
    let ended = ask(&bench, "m", "https://llm.invalid/v1").expect(2).says("https_proxy names no");
    assert!(!ended.stderr.contains("geheim"), "{}", ended.stderr);
    let proxy = Server::start(|_| Reply::status(407));
    let mut bench = Bench::with_rows(9);
    bench.set("http_proxy", &origin(&proxy));
    ask(&bench, "m", "http://llm.invalid/v1").expect(77).says("407");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A whole reply whose body is coded.
fn coded(status: u16, coding: &str, kind: &str, body: &[u8]) -> Reply {
    let mut reply = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\ncontent-encoding: {coding}\r\n\
         content-type: {kind}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    reply.extend_from_slice(body);
    Reply::Raw(reply)
}

#[test]
fn compressed_answers_are_decoded() {
    let server = Server::start(|call| {
        let text = answer_to(&call.prompt);
        if call.body["stream"] == true {
            let events: String =
                shapes::events(&call.path, &text).iter().map(shapes::framed).collect();
            return coded(200, "gzip", "text/event-stream", &gzip(events.as_bytes()));
        }
        let body = shapes::body(&call.path, &text);
        match call.headers["authorization"].as_str() {
            "Bearer zlib" => coded(200, "deflate", "application/json", &zlib(body.as_bytes())),
            _ => coded(200, "gzip", "application/json", &gzip(body.as_bytes())),
        }
    });
    for (model, key) in [("m", "gzip"), ("m", "zlib"), ("m?transport=sse", "gzip")] {
        let mut bench = Bench::with_rows(4);
        bench.set("OPENAI_API_KEY", key);
        ask(&bench, model, &server.url()).expect(0);
        bench.assert_answers(4);
    }
    let bench = Bench::new();
    bench.write("in.jsonl", request_lines());
    bench.run(&format!("run in.jsonl -o out.jsonl --base-url {}", server.url())).expect(0);
    assert_eq!(server.count(), 14, "each is asked once");
    for call in server.calls() {
        assert_eq!(call.headers["accept-encoding"], "identity");
    }
}

#[test]
fn compressed_error_is_read() {
    let body = json!({"error": {"message": "the key is revoked"}}).to_string();
    let server = Server::start(move |_| coded(401, "gzip", "x/y", &gzip(body.as_bytes())));
    let bench = Bench::with_rows(2);
    ask(&bench, "m", &server.url()).expect(77).says("HTTP 401: the key is revoked");
}

#[test]
fn unknown_coding_ends_the_run_before_rows_fail() {
    let server = Server::start(|_| coded(200, "br", "application/json", b"\x8b\x02\x80"));
    let bench = Bench::with_rows(20);
    let ended = bench.run(&format!("{ASK} -c 1 -m m --base-url {}", server.url())).expect(78);
    ended.says("coded in \"br\"").says("turn compression off");
    assert_eq!(server.count(), 3, "each is paid for");
    assert!(!bench.exists("out.jsonl"));
}

fn moved(status: u16, place: impl Into<String>) -> Reply {
    Reply::Status(status, vec![("location", place.into())], String::new())
}

#[test]
fn redirect_to_the_same_host_is_followed_with_key_and_body() {
    let script = |status| {
        move |call: &Call| match call.path.starts_with("/v2") {
            true => Reply::Answer(answer_to(&call.prompt)),
            false => moved(status, call.path.replace("/v1", "/v2") + "?a=b"),
        }
    };
    for (status, model) in [(307, "m"), (308, "m"), (307, "m?transport=sse")] {
        let (server, bench) = (Server::start(script(status)), Bench::with_rows(4));
        ask(&bench, model, &server.url()).expect(0);
        bench.assert_answers(4);
        let calls = server.calls();
        assert_eq!(calls.len(), 8);
        for call in calls.iter().filter(|call| call.path.starts_with("/v2")) {
            assert_eq!(call.path, "/v2/chat/completions?a=b");
            assert_eq!(call.headers["authorization"], format!("Bearer {CANARY}"));
            assert!(call.headers.contains_key("idempotency-key"));
        }
    }
    let (server, bench) = (Server::start(script(307)), Bench::new());
    bench.write("in.jsonl", request_lines());
    bench.run(&format!("run in.jsonl -o out.jsonl --base-url {}", server.url())).expect(0);
    assert_eq!(server.count(), 4);
}

#[test]
fn redirect_to_https_on_the_same_host_is_followed() {
    let (server, pem) = Server::start_tls(|call| Reply::Answer(answer_to(&call.prompt)));
    let place = server.https_url() + "/chat/completions";
    let plain = Server::start(move |_| moved(308, place.clone()));
    let mut bench = Bench::with_rows(3);
    bench.write("roots.pem", &pem);
    bench.set("SSL_CERT_FILE", bench.path("roots.pem").to_str().unwrap());
    ask(&bench, "m", &plain.url().replace("127.0.0.1", "localhost")).expect(0);
    bench.assert_answers(3);
    assert_eq!((plain.count(), server.count()), (3, 3));
}

#[test]
fn redirect_elsewhere_ends_the_run_before_rows_fail() {
    let other = Server::echo();
    let elsewhere = format!("{}/chat/completions", other.url());
    for (status, place) in
        [(307, elsewhere + "?sig=geheim"), (301, "/v2/x".to_owned()), (302, "/v2/x".to_owned())]
    {
        let shown = place.split('?').next().unwrap().to_owned();
        let server = Server::start(move |_| moved(status, place.clone()));
        let bench = Bench::with_rows(20);
        let ended = ask(&bench, "m", &server.url()).expect(78).says(&shown);
        assert!(!ended.stderr.contains("geheim"));
        assert!(!bench.exists("out.jsonl"));
    }
    assert_eq!(other.count(), 0, "the key goes nowhere else");
}

#[test]
fn redirects_without_end_are_given_up() {
    let server = Server::start(|call| moved(307, call.path.clone() + "/x"));
    let bench = Bench::with_rows(5);
    bench.run(&format!("{ASK} -c 1 -m m --base-url {}", server.url())).expect(78);
    assert_eq!(server.count(), 3 * 4);
}
