//! Generates the messages and services from `culprit/v1/*.proto` without
//! protoc, and derives the JSON form of every message from its descriptor, so
//! that a new field needs no line of Rust to appear in JSON.

use std::error::Error;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};
use tonic_prost_build::Builder;

const PACKAGE: &str = ".culprit.v1";

/// Nanoseconds since the epoch that JSON shows as RFC 3339.
const TIMES: [&str; 6] = [
    "time",
    "opened_at",
    "last_seen",
    "since",
    "until",
    "reported",
];

/// Messages whose `Serialize` is written by hand.
const BY_HAND: [&str; 1] = [".culprit.v1.Endpoint"];

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["identity", "lane", "findings", "events", "stream", "local"]
        .map(|f| format!("culprit/v1/{f}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let set = protox::Compiler::new(["."])?
        .include_source_info(true)
        .open_files(&files)?
        .file_descriptor_set();

    let mut builder = tonic_prost_build::configure()
        .bytes(PACKAGE)
        .btree_map(PACKAGE);
    let mut enums = Vec::new();
    for file in &set.file {
        for message in &file.message_type {
            builder = message_attributes(builder, PACKAGE, message, &mut enums);
        }
        for e in &file.enum_type {
            enums.push(enum_path(PACKAGE, e));
        }
    }
    let names: String = enums
        .iter()
        .map(|path| {
            format!(
                "impl crate::json::EnumName for {} {{ fn enum_name(value: i32) -> Option<&'static str> \
                 {{ let name = Self::try_from(value).ok()?.as_str_name(); \
                 name.strip_prefix({:?}).or(Some(name)) }} }}\n",
                rust_path(path),
                value_prefix(path)
            )
        })
        .collect();
    std::fs::write(
        std::path::Path::new(&std::env::var("OUT_DIR")?).join("enum_names.rs"),
        names,
    )?;
    builder.compile_fds(set)?;
    Ok(())
}

fn message_attributes(
    mut builder: Builder,
    parent: &str,
    message: &DescriptorProto,
    enums: &mut Vec<String>,
) -> Builder {
    // Map entries become map fields, not types.
    if message.options.as_ref().is_some_and(|o| o.map_entry()) {
        return builder;
    }
    let path = format!("{parent}.{}", message.name());
    for e in &message.enum_type {
        enums.push(enum_path(&path, e));
    }
    for nested in &message.nested_type {
        builder = message_attributes(builder, &path, nested, enums);
    }
    if BY_HAND.contains(&path.as_str()) {
        return builder;
    }
    builder = builder.message_attribute(&path, "#[derive(::serde::Serialize)]");
    // A oneof nests under its own name here; an event's line takes it apart
    // (json::EventLine).
    for oneof in &message.oneof_decl {
        builder = builder.type_attribute(
            format!("{path}.{}", oneof.name()),
            "#[derive(::serde::Serialize)]\n#[serde(rename_all = \"snake_case\")]",
        );
    }
    for field in &message.field {
        if field.oneof_index.is_none()
            && let Some(attribute) = field_attribute(message, field)
        {
            builder = builder.field_attribute(format!("{path}.{}", field.name()), attribute);
        }
    }
    builder
}

fn field_attribute(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<String> {
    let repeated = field.label() == Label::Repeated;
    let with = |function: &str| {
        Some(format!(
            "#[serde(serialize_with = \"crate::json::{function}\")]"
        ))
    };
    match field.r#type() {
        Type::Enum if repeated => panic_on(message, field, "repeated enum"),
        Type::Enum => with(&format!(
            "enumeration::<{}, _>",
            rust_path(field.type_name())
        )),
        Type::Bytes if repeated => with("hex_list"),
        Type::Bytes => with("hex"),
        Type::Fixed64 if TIMES.contains(&field.name()) => with("timestamp"),
        Type::Message if !repeated => {
            Some("#[serde(skip_serializing_if = \"Option::is_none\")]".to_owned())
        }
        _ => None,
    }
}

/// The build stops: this shape has no JSON form yet.
fn panic_on(message: &DescriptorProto, field: &FieldDescriptorProto, what: &str) -> Option<String> {
    panic!(
        "{}.{}: {what} has no JSON form; add one to proto/build.rs and proto/src/json.rs",
        message.name(),
        field.name()
    )
}

fn enum_path(parent: &str, e: &EnumDescriptorProto) -> String {
    format!("{parent}.{}", e.name())
}

/// `.culprit.v1.TcpFlow.CloseReason` -> `CLOSE_REASON_`, which JSON leaves out.
fn value_prefix(proto: &str) -> String {
    let name = proto.rsplit('.').next().unwrap_or_default();
    let mut prefix = String::new();
    for (i, c) in name.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix + "_"
}

/// `.culprit.v1.TcpConnect.Outcome` -> `crate::v1::tcp_connect::Outcome`
fn rust_path(proto: &str) -> String {
    let mut parts: Vec<&str> = proto
        .trim_start_matches(PACKAGE)
        .trim_start_matches('.')
        .split('.')
        .collect();
    let name = parts.pop().unwrap_or_default();
    let mut path = String::from("crate::v1::");
    for part in parts {
        for (i, c) in part.char_indices() {
            if c.is_ascii_uppercase() && i > 0 {
                path.push('_');
            }
            path.push(c.to_ascii_lowercase());
        }
        path.push_str("::");
    }
    path + name
}
