//! Other programs' files and command lines, as far as `doctor` needs them.

pub mod cdi_spec;
pub mod checkpoint;
pub mod process;
pub mod runtime_settings;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::model::doctor::facts::Engine;

    proptest! {
        /// These files are other people's: any text is an answer or an error.
        #[test]
        fn no_text_panics(text in "(\\PC|\n|\\{|\\[|\"|: |= |- |kind|devices|Data){0,60}") {
            let _ = super::cdi_spec::parse_cdi_spec(&text);
            let _ = super::checkpoint::parse_checkpoint(text.as_bytes());
            let _ = super::process::parse_kubelet_root(text.as_bytes());
            let _ = super::process::parse_root_filesystem(&text);
            let _ = super::process::is_user_namespace(&text);
            for engine in [Engine::Containerd, Engine::Crio, Engine::Docker] {
                let _ = super::runtime_settings::parse_runtime_settings(engine, &text);
            }
        }
    }
}
