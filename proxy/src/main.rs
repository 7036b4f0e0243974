//! The `grid` binary. All of it is in the library, where `fuzz/` can reach what reads foreign bytes.

fn main() -> std::process::ExitCode {
    grid::main()
}
