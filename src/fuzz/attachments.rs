//! What rows name as attached.

use std::path::Path;

use crate::format::json::Object;
use crate::input::{Attachments, Format, Source};
use crate::job::{FailureKind, JobSpec, MediaType, Payload, Reference, Transport};
use crate::prompt::Template;
use crate::provider::{Access, Api};

const JOB: &str = r#"{"model":"m","prompt":"","instruction":null,"parameters":{},"id_field":null,
    "selection":{"offset":0,"limit":null,"sample":null},"attachment_field":"a",
    "max_attachment_bytes":100,"on_duplicate":"error","on_missing_field":"error",
    "max_row_bytes":9,"include_input":false}"#;

/// Names of attachments: what is told of them is short, what is sent is of a known type, within its
/// bound and valid JSON, and a row is shown to the model without its data.
pub(super) fn attachment(bytes: &[u8], _: &Path) {
    let _ = MediaType::of_bytes(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let job: JobSpec = serde_json::from_str(JOB).expect("it is a job");
    let reference = Reference::parse(text);
    assert!(reference.shown().chars().count() < 300);
    let row = serde_json::json!({"a": text, "b": 1}).to_string();
    let object = Object::parse(&row).expect("it is an object");
    let prompt = Template::parse("{{row_json}}").ask(&object, &job).expect("it can be asked");
    let is_blank = text.trim().is_empty();
    let expected = if is_blank { Vec::new() } else { vec![text.to_owned()] };
    assert_eq!(prompt.attachments, expected);
    let shown: serde_json::Value = serde_json::from_str(&prompt.text).expect("it is JSON still");
    let (shown, is_one) = (shown["a"].as_str().unwrap_or_default(), shown["b"] == 1);
    assert!(is_one);
    // Files are the user's own: what they are called is not tried on this disk.
    let Reference::Data { data, .. } = reference else {
        return assert_eq!(shown, text);
    };
    assert_eq!(shown, format!("{}…", &text[..text.len() - data.len()]));
    let source = Source {
        path: "in.jsonl".into(),
        name: None,
        format: Format::JsonLines,
        length: 0,
        data_offset: 0,
        data_line: 1,
        notes: Vec::new(),
    };
    let readers = Attachments::of(&job, &source.into(), true);
    let reader = readers.first().expect("it has a field");
    match reader.read(&prompt.attachments) {
        Err(failure) => assert_eq!(failure.kind, FailureKind::Attachment),
        Ok(read) => {
            let sizes = read.iter().map(|it| match &it.payload {
                Payload::Bytes(_, bytes) => bytes.len(),
                _ => panic!("a data URI is bytes"),
            });
            assert!((1..=100).contains(&sizes.sum::<usize>()));
            let api = Api::new(&job, Transport::Http, Access::default()).expect("it can be called");
            let parts = api.attach(&read).expect("chat takes all data");
            let _: serde_json::Value = serde_json::from_slice(&parts).expect("it is JSON");
        }
    }
}
