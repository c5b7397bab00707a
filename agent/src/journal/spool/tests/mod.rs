#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod age;
mod fake;
mod lanes;
mod machine;
mod real;
