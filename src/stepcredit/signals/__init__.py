"""Where process scores come from: reward models, teachers, language models, programs."""
