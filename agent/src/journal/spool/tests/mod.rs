#![expect(clippy::unwrap_used, reason = "tests")]

mod age;
mod fake;
mod lanes;
mod machine;
mod real;
