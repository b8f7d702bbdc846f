//! More than a hundred ways to get a request wrong: each is told what it got wrong, and leaves nothing behind.

use reqwest::{
    Body, Method, RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{TestApp, json};

/// The longest body this server takes.
const BODY_LIMIT: usize = 1 << 20;

/// A request, the status it is refused with, and the field at fault.
struct Malformed {
    method: Method,
    path: String,
    header: Option<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
    status: u16,
    field: &'static str,
}

/// A create with this body.
fn body(status: u16, field: &'static str, body: impl Into<Vec<u8>>) -> Malformed {
    let header = Some(("Content-Type", b"application/json".to_vec()));
    Malformed { method: Method::POST, path: "/predictions".into(), header, body: body.into(), status, field }
}

/// A create with this header and nothing else wrong.
fn header(status: u16, field: &'static str, name: &'static str, value: impl Into<Vec<u8>>) -> Malformed {
    Malformed { header: Some((name, value.into())), ..body(status, field, "{}") }
}

/// A request for this URL.
fn url(status: u16, field: &'static str, method: Method, path: impl Into<String>) -> Malformed {
    Malformed { method, path: path.into(), ..body(status, field, "{}") }
}

fn bodies_that_are_not_json() -> Vec<Malformed> {
    let texts = [
        "",
        " ",
        "{",
        "}",
        "nul",
        "'",
        r#"""#,
        r#"{"input":}"#,
        r#"{'input':{}}"#,
        r#"{"input":{},}"#,
        r#"{"input":{}}{"#,
        r#"{input:{}}"#,
        "[1,",
        "NaN",
        "// comment\n{}",
        "\u{feff}{}",
        r#"{"input":{"seed":01}}"#,
        r#"{"input":{"seed":+1}}"#,
        r#"{"input":{"seed":0x10}}"#,
        r#"{"input":{"seed":1e999}}"#,
        r#"{"input":{"guidance_scale":NaN}}"#,
        r#"{"input":{"guidance_scale":-Infinity}}"#,
        r#"{"input":{"guidance_scale":.5}}"#,
        r#"{"input":{"prompt":"\ud800"}}"#,
        r#"{"input":{"prompt":"\x41"}}"#,
        "{\"input\":{\"prompt\":\"two\nlines\"}}",
        "prompt=a+cat",
        "<input/>",
    ];
    let bytes: [&[u8]; 4] = [b"\xff", b"{\"input\":{\"prompt\":\"\xc3\x28\"}}", b"{\"\xed\xa0\x80\":1}", b"\0"];
    let deep = ["[".repeat(10_000), r#"{"input":"#.repeat(10_000), format!("{}{}", "[".repeat(200), "]".repeat(200))];
    let texts = texts.map(|text| body(400, "body", text));
    texts
        .into_iter()
        .chain(bytes.map(|bytes| body(400, "body", bytes)))
        .chain(deep.map(|text| body(400, "body", text)))
        .collect()
}

fn bodies_of_the_wrong_shape() -> Vec<Malformed> {
    [
        ("body", "[]"),
        ("body", "null"),
        ("body", "true"),
        ("body", "5"),
        ("body", r#""text""#),
        ("body", r#"[{"input":{}}]"#),
        ("model", r#"{"model":5}"#),
        ("model", r#"{"model":["sdxl-lightning-4step"]}"#),
        ("model", r#"{"model":""}"#),
        ("model", r#"{"model":"nobody"}"#),
        ("model", r#"{"model":"acme/sdxl-lightning-4step"}"#),
        ("model", r#"{"model":"sdxl-lightning-4step:0"}"#),
        ("model", r#"{"model":"\u0000"}"#),
        ("version", r#"{"version":5}"#),
        ("version", r#"{"version":""}"#),
        ("version", r#"{"version":"0"}"#),
        ("version", r#"{"model":"sdxl-lightning-4step","version":"0"}"#),
        ("inptu", r#"{"inptu":{}}"#),
        ("id", r#"{"id":"0197f3a0-5bd3-7cc2-8e5c-3b1a2f4d5e6f"}"#),
        ("stream", r#"{"stream":true}"#),
        ("webhook", r#"{"webhook":"http://10.0.0.1"}"#),
        ("webhook_events_filter", r#"{"webhook_events_filter":["end"]}"#),
        ("prompt", r#"{"prompt":"a cat"}"#),
        ("input", r#"{"input":5}"#),
        ("input", r#"{"input":"a cat"}"#),
        ("input", r#"{"input":[]}"#),
        ("input", r#"{"input":true}"#),
    ]
    .map(|(field, text)| body(422, field, text))
    .into()
}

fn inputs() -> Vec<Malformed> {
    let long = format!("{:?}", "x".repeat(10_001));
    let fields: [(&str, &[&str]); 11] = [
        ("input.prompt", &["5", "true", "[]", "{}", r#""a\u0000b""#, &long]),
        ("input.negative_prompt", &["5", r#""\u0000""#, &long]),
        ("input.width", &["-8", "0", "8", "255", "1023", "1281", "1288", "1e9", "512.5", r#""wide""#, "true", "[]"]),
        ("input.height", &["248", "1288", "513", r#""512px""#, "{}", r#""1e400""#]),
        ("input.num_outputs", &["0", "5", "-1", "1.5", r#""two""#, "false"]),
        ("input.scheduler", &["5", r#""euler""#, r#""k_euler""#, r#""K_EULER ""#, "[]"]),
        ("input.num_inference_steps", &["0", "11", "4.2", r#""four""#, "[4]"]),
        ("input.guidance_scale", &["-0.1", "50.1", r#""nan""#, r#""inf""#, "true", "1e308"]),
        ("input.seed", &["-1", "0.5", "18446744073709551615", "1e300", "1e20", r#""0x10""#, "true", "[]"]),
        ("input.disable_safety_checker", &["2", "-1", r#""perhaps""#, "[]"]),
        ("input.promt", &[r#""a cat""#, "null"]),
    ];
    let of_field = |(path, values): (&'static str, &[&str])| {
        let name = path.trim_start_matches("input.").to_owned();
        values.iter().map(|value| body(422, path, format!(r#"{{"input":{{"{name}":{value}}}}}"#))).collect::<Vec<_>>()
    };
    fields.into_iter().flat_map(of_field).collect()
}

fn headers() -> Vec<Malformed> {
    let media_types: [&[u8]; 9] = [
        b"text/plain",
        b"text/json",
        b"application/x-www-form-urlencoded",
        b"application/xml",
        b"application/jsonp",
        b"image/png",
        b"json",
        b"",
        b"\xff",
    ];
    let media_types = media_types.map(|media_type| header(415, "Content-Type", "Content-Type", media_type));
    let encodings =
        ["gzip", "br", "identity, gzip"].map(|value| header(415, "Content-Encoding", "Content-Encoding", value));
    let times: [&[u8]; 11] =
        [b"", b"soon", b"4", b"4s", b"0", b"-5", b"+5", b"1.5h", b"24h1s", b"99999999999999999999", b"\xff"];
    let times = times.map(|time| header(422, "Cancel-After", "Cancel-After", time));
    let hosts = ["", "user@host", "host/path", "two hosts", "host:port"].map(|host| header(422, "Host", "Host", host));
    // A form that is none.
    let form = header(400, "body", "Content-Type", b"multipart/form-data; boundary=x");
    media_types.into_iter().chain([form]).chain(encodings).chain(times).chain(hosts).collect()
}

fn urls() -> Vec<Malformed> {
    let lists = [
        ("limit", "limit=0"),
        ("limit", "limit=101"),
        ("limit", "limit=-1"),
        ("limit", "limit=1.5"),
        ("limit", "limit=many"),
        ("limit", "limit="),
        ("limit", "limit=1&limit=2"),
        ("limit", "limit=99999999999999999999"),
        ("status", "status=queued"),
        ("status", "status=SUCCEEDED"),
        ("status", "status="),
        ("status", "status=starting&status=failed"),
        ("cursor", "cursor="),
        ("cursor", "cursor=x"),
        ("cursor", "cursor=AAAA"),
        ("cursor", "cursor=%00%ff"),
        ("cursor", "cursor=__________________________________________"),
        ("stauts", "stauts=failed"),
    ];
    let lists = lists.map(|(field, query)| url(422, field, Method::GET, format!("/predictions?{query}")));
    let waits = ["wait=-1", "wait=x", "wait=1.5", "wait=5s", "wait=1&wait=2", "wait=%31%00"];
    let mut urls: Vec<_> = lists.into();
    for wait in waits {
        urls.push(url(422, "wait", Method::POST, format!("/predictions?{wait}")));
        urls.push(url(422, "wait", Method::PUT, format!("/predictions/{}?{wait}", Uuid::new_v4())));
        urls.push(url(422, "wait", Method::GET, format!("/predictions/{}?{wait}", Uuid::new_v4())));
    }
    urls.push(url(422, "weight", Method::GET, format!("/predictions/{}?weight=1", Uuid::new_v4())));
    let ids = [
        "1",
        "not-a-uuid",
        "0197f3a05bd37cc28e5c3b1a2f4d5e6f",
        "%00",
        "%FF",
        "..%2Fmodels",
        "%7B0197f3a0-5bd3-7cc2-8e5c-3b1a2f4d5e6f%7D",
    ];
    for id in ids {
        urls.push(url(422, "id", Method::PUT, format!("/predictions/{id}")));
        // What is no id is simply not there.
        urls.push(url(404, "", Method::GET, format!("/predictions/{id}")));
        urls.push(url(404, "", Method::DELETE, format!("/predictions/{id}")));
        urls.push(url(404, "", Method::POST, format!("/predictions/{id}/cancel")));
    }
    for path in ["/models/nobody", "/models/a/b/c", "/models/%FF", "/models/", "/predictions/", "/v2", "//"] {
        urls.push(url(404, "", Method::GET, path));
    }
    urls
}

fn huge_bodies() -> Vec<Malformed> {
    let padded = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    vec![body(413, "body", padded(BODY_LIMIT + 1)), body(413, "body", vec![0xff; BODY_LIMIT * 4])]
}

impl TestApp {
    async fn refuses(&self, malformed: Malformed) {
        let Malformed { method, path, header, body, status, field } = malformed;
        let start: String = String::from_utf8_lossy(&body).chars().take(80).collect();
        let what = format!("{method} {path} {header:?} {start}");
        let mut request = self.request(method, &path).body(body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{what}");
        assert!(response.headers().contains_key("x-request-id"), "{what}");
        let problem: Value = json(response).await;
        assert_eq!(problem["status"], status, "{what}");
        let empty = Vec::new();
        let invalid = problem["invalid_fields"].as_array().unwrap_or(&empty);
        let named: Vec<_> = invalid.iter().map(|invalid| invalid["field"].as_str().unwrap()).collect();
        let expected: &[&str] = if field.is_empty() { &[] } else { &[field] };
        assert_eq!(named, expected, "{what}: {problem}");
    }
}

#[sqlx::test]
async fn every_malformed_request_is_told_what_is_wrong_with_it(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.body_limit = BODY_LIMIT).await;
    let groups = [bodies_that_are_not_json(), bodies_of_the_wrong_shape(), inputs(), headers(), urls(), huge_bodies()];
    let malformed: Vec<_> = groups.into_iter().flatten().collect();
    assert!(malformed.len() >= 100);
    for malformed in malformed {
        app.refuses(malformed).await;
    }
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 0);
}

#[sqlx::test]
async fn a_body_without_a_length_is_cut_off_where_it_gets_too_long(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.body_limit = BODY_LIMIT).await;
    let chunks = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; BODY_LIMIT / 16])));
    let response = app.post("/predictions").body(Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(json(response).await["code"], "body_too_large");
}

#[sqlx::test]
async fn several_mistakes_are_told_at_once(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let request = app.post("/predictions").body(r#"{"input":{"width":1023,"height":"x","promt":""}}"#);
    let problem = json(request.send().await.unwrap()).await;
    insta::assert_json_snapshot!(problem, {".request_id" => "[request id]"}, @r#"
    {
      "code": "invalid_request",
      "detail": "invalid input: input.height: must be an integer between 256 and 1280; input.width: must be a multiple of 8; input.promt: is not a field of this model",
      "invalid_fields": [
        {
          "field": "input.height",
          "reason": "must be an integer between 256 and 1280"
        },
        {
          "field": "input.width",
          "reason": "must be a multiple of 8"
        },
        {
          "field": "input.promt",
          "reason": "is not a field of this model"
        }
      ],
      "request_id": "[request id]",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "about:blank"
    }
    "#);
}

#[sqlx::test]
async fn an_input_that_is_too_long_to_be_kept_is_refused_on_every_face(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let long = "x".repeat(70_000);
    let zeros = format!("{}7", "0".repeat(70_000));
    let of_model = "/v1/models/bytedance/sdxl-lightning-4step/predictions";
    let eachlabs = json!({"model": "sdxl-lightning-4step", "input": {"lora": long}});
    let mut named_long = json!({"input": {}});
    named_long["input"][&long] = json!(1);
    for (path, body, status) in [
        ("/predictions", json!({"input": {"seed": zeros}}), 422),
        (of_model, json!({"input": {"lora": [long]}}), 422),
        (of_model, json!({"input": {"lora": format!("data:image/png;base64,{long}")}}), 422),
        (of_model, named_long, 422),
        ("/v1/prediction", eachlabs, 400),
        ("/v1/images/generations", json!({"prompt": "a cat", "seed": zeros}), 400),
    ] {
        let refused = app.post(path).json(&body).send().await.unwrap();
        assert_eq!(refused.status(), status, "{path}");
        let refused = json(refused).await;
        // Each face names the field in a place of its own.
        let named = [&refused["invalid_fields"][0], &refused["details"][0]].map(|invalid| &invalid["field"]);
        assert!(named.contains(&&json!("input")) || refused["error"]["param"] == "input", "{refused}");
        assert!(refused.to_string().contains("65536 bytes"), "{refused}");
    }
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 0);
    // What the model takes is not too long, whatever it is written in.
    let prompt = "🐈".repeat(10_000);
    app.create(json!({"prompt": prompt, "negative_prompt": prompt})).await;
}

#[sqlx::test]
async fn json_of_too_many_values_is_refused_on_every_face(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let many = format!("[{}0]", r#"{"":0},"#.repeat(10_000));
    let refuses = async |path: &str, request: RequestBuilder, status: u16| {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let refused = json(response).await.to_string();
        assert!(refused.contains("must not have more than 20000 values"), "{path}: {refused}");
    };
    for (path, status) in [
        ("/predictions", 400),
        ("/estimate", 400),
        ("/v1/predictions", 400),
        ("/v1/models/bytedance/sdxl-lightning-4step/predictions", 400),
        ("/v1/prediction", 422),
        ("/v1/images/generations", 400),
    ] {
        let body = format!(r#"{{"prompt": "[{{,\\\"[{{,", "input": {many}}}"#);
        refuses(path, app.post(path).header("Content-Type", "application/json").body(body), status).await;
    }
    let file = || Part::bytes(b"x".to_vec()).file_name("x.png");
    for (path, form) in [
        ("/predictions", Form::new().text("input", many.clone())),
        ("/files", Form::new().part("file", file()).text("metadata", many.clone())),
        ("/v1/files", Form::new().part("content", file()).text("metadata", many.clone())),
    ] {
        refuses(path, app.post(path).multipart(form), 422).await;
    }
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 0);
}

#[sqlx::test]
async fn of_many_unknown_fields_a_few_are_named_in_a_refusal(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let unknown: serde_json::Map<_, _> = (0..5000).map(|number| (format!("c{number}"), json!(number))).collect();
    for body in [json!({"input": unknown}), json!(unknown)] {
        let problem = json(app.post("/predictions").json(&body).send().await.unwrap()).await;
        assert_eq!((&problem["status"], problem["invalid_fields"].as_array().unwrap().len()), (&json!(422), 20));
    }
}

#[sqlx::test]
async fn of_many_unknown_fields_a_few_are_named_in_the_logs(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut input = json!({"a": 1, "b".repeat(200): 2});
    for number in 0..1000 {
        input[format!("c{number}")] = json!(number);
    }
    let create = app.post("/v1/models/bytedance/sdxl-lightning-4step/predictions").json(&json!({"input": input}));
    let created = json(create.send().await.unwrap()).await;
    let lines: Vec<&str> = created["logs"].as_str().unwrap().lines().collect();
    let cut = format!("Ignored unknown field \"{}…\"", "b".repeat(64));
    assert_eq!(lines[..2], ["Ignored unknown field \"a\"", &cut]);
    assert_eq!((lines.len(), lines[10]), (11, "Further unknown fields ignored: 992"));
}
