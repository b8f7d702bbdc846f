//! Requests drawn side by side: they share each call of the UNet and nothing else. Every image has its own noise, its
//! own scheduler and its own way through the VAE, so that it is the one its request would get alone. A request alone is
//! a batch of one.
//!
//! diffusers: `pipeline_stable_diffusion_xl.py`, `StableDiffusionXLPipeline.__call__`, whose numbers the steps have
//! here. Its step 7 is the same for all images of a request, and is taken with step 3.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Pipeline, device,
    error::Error,
    image_to_image::ImageLatents,
    noise::TorchCudaRng,
    params::{Generation, Latents, Params, Progress, Step, Timings},
    scheduler::{self, CleanSample, Scheduler},
    unet::UNetConditioning,
};

/// Hears of progress, with the request's place in the batch.
type Callback<'a> = &'a mut dyn FnMut(usize, Progress<'_>) -> ControlFlow<()>;

/// A request in a batch.
struct Member<'a> {
    /// Its place.
    place: usize,
    params: &'a Params,
    conditioning: UNetConditioning,
    /// The image to start from: its latents are sampled anew for each image.
    start: Option<ImageLatents>,
    made: Generation,
    /// Why it got no further. The others go on.
    ended: Option<Error>,
}

/// One image of a member on its way from noise to latents.
struct Drawing<'m, 'a> {
    member: &'m mut Member<'a>,
    seed: u64,
    scheduler: Box<dyn Scheduler>,
    rng: TorchCudaRng,
    latents: Latents,
}

impl Pipeline {
    /// Draws requests side by side, which must be [alike](Params::is_alike). Each is told of with its place in the
    /// batch, and has a result of its own; one that is canceled leaves the others. What goes wrong in a call that they
    /// share goes wrong for all.
    pub fn generate_batch(
        &self,
        batch: &[Params],
        callback: Callback<'_>,
    ) -> Result<Vec<Result<Generation, Error>>, Error> {
        if !batch.iter().all(|params| params.is_alike(&batch[0])) {
            return Err(Error::Params("requests of one batch must have the same size, steps and scheduler".into()));
        }
        let mut results: Vec<Option<Result<Generation, Error>>> = batch.iter().map(|_| None).collect();
        let mut members = Vec::with_capacity(batch.len());
        for (place, params) in batch.iter().enumerate() {
            match self.admit(place, params) {
                Ok(member) => members.push(member),
                Err(error) => results[place] = Some(Err(error)),
            }
        }
        // Not before the texts are encoded: each of them would be kept for good.
        let _kept = device::keep_small_uploads(&self.device);
        for image_index in 0..batch.first().map_or(0, |params| params.num_images_per_prompt) {
            self.draw_image(&mut members, image_index, callback)?;
        }
        for member in members {
            let place = member.place;
            results[place] = Some(member.result());
        }
        // Each was refused or became a member, so there is a result for each.
        Ok(results.into_iter().flatten().collect())
    }

    /// What is done once for all images of a request.
    fn admit<'a>(&self, place: usize, params: &'a Params) -> Result<Member<'a>, Error> {
        // 1. Check inputs.
        self.check(params)?;
        // 3. Encode the prompt, and with guidance the negative prompt.
        let started = Instant::now();
        let (texts, notes) = self.text_encoders.encode(params)?;
        // 7. Added time ids: original size, crop, target size. The hosted model passes the requested size for both.
        let (height, width) = (params.height as f32, params.width as f32);
        let add_time_ids = [height, width, 0.0, 0.0, height, width];
        let conditioning = self.unet.condition(&texts.prompt_embeds, &texts.pooled_prompt_embeds, add_time_ids)?;
        self.device.synchronize()?;
        let start = params.image.as_ref().map(|image| self.encode_image(image, params)).transpose()?;
        let timings = Timings { encode: started.elapsed(), ..Timings::default() };
        let safety = self.safety(params);
        let made = Generation { images: Vec::new(), seeds: Vec::new(), safety, timings, notes };
        Ok(Member { place, params, conditioning, start, made, ended: None })
    }

    /// An image of a member before the first call.
    fn begin<'m, 'a>(&self, member: &'m mut Member<'a>, image_index: usize) -> Result<Drawing<'m, 'a>, Error> {
        let params = member.params;
        // 4. Timesteps.
        let scheduler = scheduler::scheduler(params.scheduler, &self.scheduler_config, params.num_inference_steps)?;
        // 5. Initial latents. Each image has a generator of its own, so that it does not depend on its neighbors.
        //    diffusers
        // draws the sample of an image's latents before the noise, and the steps' noise after it.
        let seed = params.seed.wrapping_add(image_index as u64);
        let mut rng = TorchCudaRng::new(seed);
        let factor = self.vae.scale_factor();
        let (channels, height, width) = (self.unet.in_channels(), params.height / factor, params.width / factor);
        let sample = member.start.as_ref().map(|start| start.sample(&mut rng));
        let noise = rng.normal(channels * height * width);
        let values = match sample {
            Some(sample) => scheduler.add_noise(&sample, &noise, params.begin_index()?),
            None => noise.into_iter().map(|value| value * scheduler.init_noise_sigma()).collect(),
        };
        Ok(Drawing { member, seed, scheduler, rng, latents: Latents { channels, height, width, values } })
    }

    /// The next image of everybody who is still there.
    fn draw_image(&self, members: &mut [Member<'_>], image_index: usize, callback: Callback<'_>) -> Result<(), Error> {
        let there = members.iter_mut().filter(|member| member.ended.is_none());
        let mut drawings: Vec<_> = there.map(|member| self.begin(member, image_index)).collect::<Result<_, _>>()?;
        let Some(params) = drawings.first().map(|drawing| drawing.member.params) else { return Ok(()) };
        let clean = CleanSample::new(&self.scheduler_config)?;
        let mut conditioning = conditioning(&drawings)?;

        // 8. Denoising loop.
        for index in params.begin_index()?..drawings[0].scheduler.timesteps().len() {
            let started = Instant::now();
            let timestep = drawings[0].scheduler.timesteps()[index];
            let inputs: Vec<Latents> = drawings.iter().map(|drawing| drawing.input(index)).collect();
            let scales: Vec<f64> = drawings.iter().map(|drawing| drawing.member.params.guidance_scale).collect();
            let outputs = self.predict(&inputs, timestep, &conditioning, &scales)?;
            drawings.iter_mut().zip(&outputs).for_each(|(drawing, output)| drawing.step(output, index));

            let share = started.elapsed() / drawings.len() as u32;
            for ((drawing, input), output) in drawings.iter_mut().zip(inputs).zip(outputs) {
                let predicted = Latents { values: clean.predict(&output, &input.values, timestep), ..input };
                drawing.tell(image_index, share, &predicted, callback);
            }
            let before = drawings.len();
            drawings.retain(|drawing| drawing.member.ended.is_none());
            match drawings.len() {
                0 => return Ok(()),
                now if now < before => conditioning = self::conditioning(&drawings)?,
                _ => {}
            }
        }

        for drawing in drawings {
            self.finish(drawing, image_index, callback)?;
        }
        Ok(())
    }

    /// One UNet call for everybody, two predictions each where the conditioning has a negative half, brought together
    /// by guidance.
    fn predict(
        &self,
        inputs: &[Latents],
        timestep: f32,
        conditioning: &UNetConditioning,
        guidance_scales: &[f64],
    ) -> Result<Vec<Vec<f32>>, Error> {
        let is_guided = conditioning.batch()? == 2 * inputs.len();
        let times = if is_guided { 2 } else { 1 };
        let batch: Vec<&Latents> = inputs.iter().flat_map(|input| std::iter::repeat_n(input, times)).collect();
        let sample = self.upload(&batch, self.unet.dtype())?; // (b, h, w, 4)
        let output = self.unet.forward(&sample, timestep, conditioning)?;
        let mut predictions = self.download(&output)?.into_iter();
        if !is_guided {
            return Ok(predictions.collect());
        }
        let guided = guidance_scales.iter().filter_map(|&scale| {
            let (noise_pred_uncond, noise_pred_text) = (predictions.next()?, predictions.next()?);
            let scale = scale as f32;
            let pairs = noise_pred_uncond.into_iter().zip(noise_pred_text);
            Some(pairs.map(|(uncond, text)| uncond + scale * (text - uncond)).collect())
        });
        Ok(guided.collect())
    }

    /// From latents to the picture among the member's.
    fn finish(&self, drawing: Drawing<'_, '_>, image_index: usize, callback: Callback<'_>) -> Result<(), Error> {
        let Drawing { member, seed, latents, .. } = drawing;
        // What should not be shown is left out, as the hosted model does.
        let started = Instant::now();
        let checked = self.decode(&latents).and_then(|image| {
            let is_flagged = self.flags(&image, member.params)?;
            Ok((image, is_flagged))
        });
        let (image, is_flagged) = match checked {
            Err(error @ Error::NotFinite { .. }) => {
                member.ended = Some(error);
                return Ok(());
            }
            checked => checked?,
        };
        member.made.timings.decode += started.elapsed();
        if is_flagged {
            member.made.notes.push(format!("NSFW content detected in image {image_index}"));
            return Ok(());
        }
        if callback(member.place, Progress::Image { index: image_index, image: &image }).is_break() {
            member.ended = Some(Error::Canceled);
            return Ok(());
        }
        member.made.images.push(image);
        member.made.seeds.push(seed);
        Ok(())
    }
}

/// What the UNet hears of everybody.
fn conditioning(drawings: &[Drawing<'_, '_>]) -> Result<UNetConditioning, Error> {
    let all: Vec<&UNetConditioning> = drawings.iter().map(|drawing| &drawing.member.conditioning).collect();
    UNetConditioning::cat(&all)
}

impl Drawing<'_, '_> {
    /// What the UNet looks at in this call.
    fn input(&self, index: usize) -> Latents {
        let Latents { channels, height, width, .. } = self.latents;
        Latents { channels, height, width, values: self.scheduler.scale_model_input(&self.latents.values, index) }
    }

    fn step(&mut self, output: &[f32], index: usize) {
        let Self { member, scheduler, rng, latents, .. } = self;
        latents.values = scheduler.step(output, index, &latents.values, &mut |count| rng.normal(count));
        if !latents.values.iter().all(|value| value.is_finite()) {
            member.ended = Some(Error::NotFinite { stage: "the UNet" });
        }
    }

    /// Tells of a call, unless it went wrong, and hears whether to go on.
    fn tell(&mut self, image_index: usize, elapsed: Duration, predicted: &Latents, callback: Callback<'_>) {
        let Self { member, latents, .. } = self;
        if member.ended.is_some() {
            return;
        }
        let index = member.made.timings.steps.len();
        member.made.timings.steps.push(elapsed);
        let step = Step { image_index, index, total: member.params.unet_calls(), latents, predicted };
        if callback(member.place, Progress::Step(step)).is_break() {
            member.ended = Some(Error::Canceled);
        }
    }
}

impl Member<'_> {
    fn result(self) -> Result<Generation, Error> {
        match self.ended {
            Some(error) => Err(error),
            None if self.made.images.is_empty() => Err(Error::Flagged),
            None => Ok(self.made),
        }
    }
}
