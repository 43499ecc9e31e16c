"""Everything of vLLM that this package relies on and vLLM does not promise: names, events, error
texts, loggers, metrics.

Promises: nothing private of vLLM is used anywhere else in the package, except for imports that
NAMES lists as well. tests/unit/with_vllm/test_vllm_internals.py looks each of them up in the
installed vLLM, and says for each that is gone what relied on it.
"""

import re

# Attributes of vLLM's modules that this package replaces, calls or subclasses: where, and why.
NAMES: dict[str, str] = {
    "vllm.entrypoints.launchers.launcher:NoSignalServer": (
        "accepting.py: it is uvicorn's Server, which is given the listening socket"
    ),
    "vllm.multimodal.media:MEDIA_CONNECTOR_REGISTRY": "images/connector.py adds its connector",
    "vllm.multimodal.media:MediaConnector": "images/connector.py subclasses it",
    "vllm.multimodal.media:ImageMediaIO": "images/connector.py takes no other kind of media",
    "vllm.multimodal.image:ALLOWED_IMAGE_FORMATS": "images/connector.py checks its own against it",
    "vllm.multimodal.media.image:open_image": "images/connector.py replaces it: formats it checked",
    "vllm.multimodal:parse": "images/connector.py changes it",
    "vllm.multimodal.parse:normalize_image": "images/connector.py: no second copy of each image",
    "vllm.multimodal.media.connector:global_thread_pool": "images/connector.py decodes in it",
    "vllm.transformers_utils.processors:pixtral": "images/connector.py changes it",
    "vllm.transformers_utils.processors.pixtral:Image": "images/sizes.py: no blank images",
    "vllm.renderers.chat_utils:_parse_chat_message_content_mm_part": (
        "images/connector.py reads a content part as vLLM does"
    ),
    "vllm.renderers.mistral:parse_chat_messages_async": (
        "images/connector.py wraps it: mistral-common gets sizes of images"
    ),
    "vllm.renderers.chat_utils:AsyncMultiModalItemTracker": "images/connector.py changes it",
    "vllm.renderers.chat_utils:AsyncMultiModalItemTracker.create_parser": (
        "images/connector.py gives the parser a weak reference, against a leak"
    ),
    "vllm.exceptions:VLLMValidationError": "images/connector.py raises it, for a 400",
    "vllm.exceptions:GracefulHTTPError": "images/connector.py raises it, for a 503",
    "vllm:envs": "images/connector.py reads the limits of images",
    "vllm.envs:enable_envs_cache": "per_token.py reads each setting of vLLM's once",
    "vllm.tokenizers.mistral:MistralTokenizer": "per_token.py remembers texts of tokens",
    "vllm.tokenizers.mistral:MistralTokenizer.convert_ids_to_tokens": "per_token.py",
    "vllm.tokenizers.mistral:MistralTokenizer.convert_tokens_to_string": "per_token.py",
    "vllm.tokenizers.mistral:MistralTokenizer.decode": "per_token.py",
    "vllm.v1.engine.detokenizer:detokenize_incrementally": "per_token.py",
    "vllm.v1.engine.output_processor:RequestOutputCollector": "unread.py changes it",
    "vllm.v1.engine.output_processor:RequestOutputCollector.put": "unread.py",
    "vllm.v1.engine.output_processor:RequestOutputCollector.get": "unread.py",
    "vllm.v1.engine.output_processor:RequestOutputCollector.get_nowait": "unread.py",
    "vllm.outputs:RequestOutput.add": "unread.py merges tokens as vLLM does",
    "vllm.tokenizers:cached_tokenizer_from_config": "constraints/verdicts.py reads the vocabulary",
    "vllm.v1.structured_output.backend_xgrammar:XgrammarBackend": (
        "constraints/verdicts.py makes its TokenizerInfo; trial.py compiles as compile_grammar does"
    ),
    "vllm.v1.structured_output:backend_xgrammar": "constraints/readings.py",
    "vllm.v1.structured_output.backend_xgrammar:validate_xgrammar_grammar": (
        "constraints/readings.py: vLLM imports it where it calls it"
    ),
    "vllm.entrypoints.generate.base:protocol": "constraints/readings.py",
    "vllm.entrypoints.generate.base.protocol:validate_structural_tag_payload": (
        "constraints/readings.py: each check of a structural tag calls it there"
    ),
    "vllm.v1.structured_output.backend_types:StructuredOutputOptions": "constraints/verdicts.py",
    "vllm.v1.structured_output.request:get_structured_output_key": "constraints/verdicts.py",
    "vllm.v1.structured_output.utils:choice_as_grammar": "constraints/verdicts.py",
    "vllm.v1.structured_output.utils:grammar_is_likely_lark": "constraints/verdicts.py",
    "vllm.v1.engine.async_llm:AsyncLLM.add_request": "constraints/verdicts.py wraps it",
    "vllm.v1.structured_output:StructuredOutputManager": "constraints/masks.py",
    "vllm.v1.structured_output:StructuredOutputManager._create_grammar": "constraints/masks.py",
    "vllm.v1.structured_output:StructuredOutputManager.grammar_bitmask": (
        "constraints/masks.py runs it in a thread; one request after another, into _grammar_bitmask"
    ),
    "vllm.v1.structured_output.backend_xgrammar:XgrammarGrammar": "constraints/masks.py",
    "vllm.v1.structured_output.backend_xgrammar:XgrammarGrammar.fill_bitmask": (
        "constraints/masks.py measures it"
    ),
    "vllm.v1.structured_output.backend_xgrammar:XgrammarGrammar.accept_tokens": (
        "constraints/masks.py: False ends a request"
    ),
    "vllm.v1.core.sched.scheduler:Scheduler": (
        "constraints/turns.py, images/turns.py, prefill_turns.py"
    ),
    "vllm.v1.core.sched.scheduler:Scheduler.schedule": (
        "these three hold back what runs by its next_decode_eligible_step"
    ),
    "vllm.v1.core.sched.scheduler:Scheduler._handle_blocked_waiting_request": (
        "these three: False keeps a request waiting"
    ),
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output": (
        "images/turns.py, prefill_turns.py take the time of a step by it"
    ),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.prefix_cache_lookup_enabled": "prefill_turns.py",
    "vllm.v1.core.block_pool:BlockPool.get_cached_block": (
        "prefill_turns.py asks whether a prompt is in the prefix cache"
    ),
    "vllm.v1.request:RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR": "scheduling.py",
    "vllm.entrypoints.generate.beam_search.online:BeamSearchOnlineMixin": "beams.py changes it",
    "vllm.entrypoints.generate.beam_search.online:BeamSearchOnlineMixin.beam_search": (
        "beams.py has one at a time"
    ),
    "vllm.renderers.mistral:MistralRenderer": "long_prompts.py changes the engine's",
    "vllm.renderers.mistral:safe_apply_chat_template": "long_prompts.py tokenizes a chat with it",
    "vllm.renderers.mistral:MistralRenderer.render_chat_async": "long_prompts.py",
    "vllm.renderers.mistral:MistralRenderer.render_cmpl_async": "long_prompts.py",
    "vllm.renderers.mistral:MistralRenderer._tokenize_prompt": "long_prompts.py",
    "vllm.renderers.mistral:MistralRenderer._decode": "long_prompts.py",
    "vllm.platforms:current_platform": "running.py reads what device this is",
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat": "tool_parser.py",
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat._make_parser": (
        "tool_parser.py leaves the parser out where it would have nothing to do"
    ),
    "vllm.parser.engine:streaming_parser_engine": "tool_parser.py changes _build_drop_info in it",
    "vllm.parser.engine.streaming_parser_engine:_build_drop_info": "tool_parser.py caches it",
    "vllm.parser.mistral:MistralParser": "tool_parser.py changes its coroutine",
    "vllm.parser.mistral:MistralParser.extract_tool_calls_streaming": (
        "tool_parser.py adds the arguments that a call's first delta lacks"
    ),
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages": "continuing.py changes it",
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.to_chat_completion_request": (
        "continuing.py continues an answer that /v1/messages begins"
    ),
    "vllm.entrypoints.serve.tokenize.serving:ServingTokenization": "tokenizing.py changes it",
    "vllm.entrypoints.serve.tokenize.serving:ServingTokenization.create_tokenize": (
        "tokenizing.py reads the calls of a history"
    ),
    "vllm.entrypoints.serve.tokenize.protocol:TokenizeChatRequest.build_tok_params": (
        "tokenizing.py gives it the model's length"
    ),
    "vllm.entrypoints.serve.tokenize.protocol:TokenizeCompletionRequest.build_tok_params": (
        "tokenizing.py gives it the model's length"
    ),
    "vllm.entrypoints.serve.tokenize:api_router": "tokenizing.py changes it",
    "vllm.entrypoints.serve.tokenize.api_router:JSONResponse": (
        "tokenizing.py writes token ids quickly"
    ),
    "vllm.parser.mistral:MistralParser.update_stream_state_pre_v11_tokenizer": (
        "tool_parser.py gives it a weak reference, against a leak"
    ),
}

# --- the scheduler (scheduling.py and constraints/, images/ and prefill_turns.py) ---

# What the scheduler does with attributes that these read or set: it counts steps first, skips
# running requests before their step, and keeps apart those that wait for something other than a
# slot.
SCHEDULER_TEXTS = (
    "self.current_step += 1",
    "if self.current_step < request.next_decode_eligible_step:",
    "self.deferred_waiting: set[Request]",
    "self.running: list[Request]",
    "self.waiting = create_request_queue(",
    "total_num_scheduled_tokens=total_num_scheduled_tokens",
    "num_scheduled_tokens=num_scheduled_tokens",
    "scheduled_new_reqs=new_reqs_data",
    "scheduled_encoder_inputs[request_id] = encoder_inputs_to_schedule",
    "self.max_num_encoder_input_tokens = (",
    "self.max_num_active_reqs = ",
    "self.scheduler_config.long_prefill_token_threshold",
    "if num_eligible_reqs > 1",
    "long_prefill_token_threshold > 0 and self.adaptive_long_prefill_threshold:",
    "long_prefill_token_threshold, input_budget // num_eligible_reqs",
    "if request.num_stale_output_tokens and not request.drop_stale_output:",
    "self.kv_cache_config = kv_cache_config",
    "self.kv_cache_manager.get_computed_blocks(request)",
    "request.prefill_stats.set(",
    "not self.scheduler_config.enable_chunked_prefill",
    "token_budget = self.max_num_scheduled_tokens",
    "input_budget = self.scheduler_config.max_num_batched_tokens",
    "start_pos = mm_feature.mm_position.offset",
    "num_encoder_tokens = mm_feature.mm_position.length",
    "request.is_prefill_chunk = request.num_computed_tokens < (",
)

# --- the renderer (long_prompts.py) ---

# How it makes prompts from a chat, a text and ids, and where it has their maximum length.
CHAT_RENDERER = "prompt_raw = await self._apply_chat_template_async("
RENDERER_TEXTS = (
    "prompt = await self._tokenize_prompt_async(prompt, params)",
    'prompt["prompt"] = await self._async_tokenizer_decode(',
    "self.render_messages_async(conversation, chat_params)",
    "tok_params = self.default_chat_tok_params",
)

# --- errors (errors/) ---

# The answer if the engine gave up a request, as it does if the grammar allows no token.
GIVEN_UP = "Internal server error"

# In the error about a model that is not served, before the names of the served model.
MODEL_NAMES = "does not exist. Valid aliases: "

# How an error event begins: of completions, and of Anthropic's messages.
ERROR_EVENTS = (b'data: {"error": ', b"event: error\n")
# How vLLM's own errors end if they name their field.
OF_PARAMETER = re.compile(r" \(parameter=(?P<name>[\w.]+)(?:, value=.*)?\)$", re.DOTALL)
# Events that /v1/responses sends before it asks the engine.
OPENING_EVENTS = (b"event: response.created\n", b"event: response.in_progress\n")
# How a chat and a message begin once the engine has answered. If it answered with an error, that
# follows at once.
ROLE_DELTA = b'"delta":{"role":"assistant","content":""}'
ANSWERED_EVENT = b"event: message_start\n"
# What is left of an error in a stream of Anthropic's messages, and in /v1/responses of a request
# that the engine gave up: vLLM takes the error for an answer, and reports pydantic's complaint
# about it. It has the beginning of the error's message, and its status.
NESTED_ERROR = re.compile(
    r"\{'error': \{'message': ['\"](?P<start>.*?)\.\.\..*?'code': (?P<code>\d{3})\}\}"
)

# A line of vLLM's "2 validation errors:", complete or cut off.
VALIDATION_ERROR = re.compile(
    r"'loc': '(?P<loc>[^']*)', 'msg': (?P<msg>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
)

# Parts of what vLLM and mistral-common say about a request (requests/words.py).
TOOL_SCHEMA = "Invalid tool schema"
NO_IMAGES = " is not a multimodal model"
NO_CONSTRAINT = "You must use one kind of structured outputs constraint"
SEVERAL_CONSTRAINTS = "You can only use one kind of "
EMPTY_CHOICE = "cannot be an empty list"
EMPTY_PROMPTS = ("The decoder prompt cannot be empty", "You must pass at least one prompt")
GREEDY = "n must be 1 when using greedy sampling"
NO_PROMPT = "Either prompt or prompt_embeds must be provided"
OUT_OF_VOCABULARY = " is out of vocabulary"
CONTEXT_LENGTH = "This model's maximum context length is "
UNKNOWN_MODEL = "` does not exist."

# Parts of pydantic's sentences, which are joined or reworded.
INPUT_SHOULD_BE = "Input should be "
FIELD_REQUIRED = "Field required"

# Modules that read a request before an engine has any part of it: what Python raises there is due
# to the request.
REQUEST_READERS = (
    "vllm.entrypoints.anthropic",
    "vllm.entrypoints.openai.chat_completion.protocol",
    "vllm.entrypoints.openai.completion.protocol",
    "vllm.entrypoints.openai.responses",
    "vllm.entrypoints.serve.tokenize",
    "vllm.renderers",
    "vllm.sampling_params",
    "vllm.tokenizers",
    "vllm.tool_parsers",
    "vllm.v1.engine.input_processor",
)

# --- logs (logs.py) ---

# The name of a logger that vLLM's configuration shows.
LOGGER = "vllm.predict"
# Loggers that quote what they read of requests and answers …
QUOTING_LOGGERS = (
    "vllm.parser",
    "vllm.reasoning",
    "vllm.renderers",
    "vllm.tokenizers",
    "vllm.tool_parsers",
    "vllm.v1.core.sched",
    "vllm.v1.structured_output",
)
# … and the one that logs a batch's requests, as text, if the engine fails on it.
BATCH_LOGGER = "vllm.logging_utils.dump_input"

# --- metrics (liveness.py, pacing.py) ---

GENERATED = "vllm:generation_tokens_total"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting_by_reason"
# These move when the engine does anything. A prefill shows in the KV cache before its first token.
PROGRESS = (
    GENERATED,
    "vllm:prompt_tokens_total",
    "vllm:kv_cache_usage_perc",
    RUNNING,
    WAITING,
)
