//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use utoipa::ToSchema;

/// A body with fields of its own, and those that every body of this face has: they are read by the same code.
macro_rules! body {
    ($(#[$about:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* }) => {
        #[derive(ToSchema)]
        $(#[$about])*
        #[expect(dead_code, reason = "it is read field by field")]
        pub struct $name {
            $($(#[$of_field])* $field: $kind,)*
            /// What to draw.
            #[schema(max_length = 10_000)]
            prompt: String,
            /// By any of its names; the first of the list if left out.
            model: Option<String>,
            /// Pictures to draw.
            #[schema(minimum = 1, maximum = 4)]
            n: Option<u32>,
            /// `auto`, which is the model's own or that of the picture to start from, or pixels like `1024x1024`. One of
            /// OpenAI's models that is too large here is drawn in its proportions, and the answer says how large.
            size: Option<String>,
            /// `b64_json` (the default) or `url`.
            response_format: Option<String>,
            /// `png`, `webp` or `jpeg`.
            output_format: Option<String>,
            /// How close to what was drawn a jpeg stays.
            #[schema(minimum = 0, maximum = 100)]
            output_compression: Option<u32>,
            /// Answers with server-sent events.
            stream: Option<bool>,
            /// Previews of a stream, at most.
            #[schema(minimum = 0, maximum = 3)]
            partial_images: Option<u32>,
            /// Means nothing here; `transparent` is refused.
            background: Option<String>,
            /// Means nothing here.
            complexity: Option<String>,
            /// Means nothing here.
            input_fidelity: Option<String>,
            /// Means nothing here.
            moderation: Option<String>,
            /// Means nothing here.
            quality: Option<String>,
            /// Means nothing here.
            style: Option<String>,
            /// Means nothing here.
            user: Option<String>,
            /// Means nothing here.
            safety_identifier: Option<String>,
            /// The model's own: as in its input.
            negative_prompt: Option<String>,
            /// The model's own: as in its input.
            seed: Option<u64>,
            /// The model's own: as in its input.
            scheduler: Option<String>,
            /// The model's own: as in its input.
            #[schema(minimum = 1, maximum = 10)]
            num_inference_steps: Option<u32>,
            /// The model's own: as in its input.
            #[schema(minimum = 0, maximum = 50)]
            guidance_scale: Option<f64>,
            /// The model's own: as in its input.
            disable_safety_checker: Option<bool>,
            /// The model's own: as in its input.
            embed_metadata: Option<bool>,
        }
    };
}

body! {
    /// Pictures to be made of a prompt.
    #[schema(as = openai::Generation)]
    Generation {}
}

body! {
    /// A picture to be made of another and a prompt. All but the picture are texts.
    #[schema(as = openai::Edit)]
    Edit {
        /// A PNG, JPEG or WebP; also as `image[]`.
        #[schema(format = Binary)]
        image: String,
        /// How much of the picture is given up to noise; 1 means all of it, and 0.8 is meant if it is left out.
        #[schema(minimum = 0, maximum = 1)]
        prompt_strength: Option<f64>,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use utoipa::PartialSchema;

    use super::*;
    use crate::{domain::InputLimits, wire::openai::CreateImages};

    fn fields<T: PartialSchema>() -> BTreeSet<String> {
        let schema = json!(T::schema());
        schema["properties"].as_object().expect("fields").keys().cloned().collect()
    }

    #[test]
    fn every_described_field_is_known_to_the_reader_and_others_are_not() {
        let refused = |field: &str| {
            let body = json!({"prompt": "", field: Value::Bool(true)});
            let refused =
                CreateImages::parse(body, &InputLimits::HOSTED).err().into_iter().flat_map(|error| error.fields);
            refused.into_iter().any(|refused| refused.reason == "is not a parameter of this URL")
        };
        for field in fields::<Generation>() {
            assert!(!refused(&field), "{field} is described and not read");
        }
        assert!(refused("sede"));
        let own: BTreeSet<_> = fields::<Edit>().difference(&fields::<Generation>()).cloned().collect();
        assert_eq!(own, BTreeSet::from(["image".to_owned(), "prompt_strength".to_owned()]));
    }
}
