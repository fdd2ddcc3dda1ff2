// Runs models of random weights with llama.cpp or ik_llama.cpp and reports the time of each phase.
//
//     llama_layers PLUGIN|- 0|1 FOLDER
//
// PLUGIN is mainline's library of CPU code for one level of instructions; "-" where the level was
// compiled in. 1 asks for weights in a reordered form. FOLDER has models like 3.gguf, and towers
// like tower2.gguf for mainline. Each line of the input, "PHASE LAYERS THREADS", is answered with the
// CPU seconds and the seconds of the clock.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"
#ifndef IK_LLAMA
#include "mtmd.h"
#endif

static const int PROMPT = 512, SHORT = 8, STEPS = 8, ROWS = 8, SIDE = 1344;
static const int VOCABULARY = 1024;

struct Text {
    llama_model * model;
    llama_context * context;
};

static void fail(const std::string & what) {
    std::cerr << what << std::endl;
    std::exit(1);
}

static void quiet(enum ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

static Text load(const std::string & file, bool reorder) {
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_context_params params = llama_context_default_params();
#ifdef IK_LLAMA
    model_params.repack_tensors = reorder;
    model_params.use_mmap = !reorder;
#else
    model_params.use_extra_bufts = reorder;
#endif
    params.n_ctx = ROWS * 2 * PROMPT;
    params.n_batch = params.n_ubatch = PROMPT;
    params.n_seq_max = ROWS;
    Text text;
    text.model = llama_model_load_from_file(file.c_str(), model_params);
    if (!text.model) fail("no model: " + file);
    text.context = llama_init_from_model(text.model, params);
    if (!text.context) fail("no context: " + file);
    return text;
}

static void clear(Text & text) {
#ifdef IK_LLAMA
    llama_kv_cache_clear(text.context);
#else
    llama_memory_clear(llama_get_memory(text.context), true);
#endif
}

// Processes `count` tokens of each of `rows` conversations; only the last gets logits.
static void decode(Text & text, int position, int count, int rows) {
    llama_batch batch = llama_batch_init(count * rows, 0, 1);
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < count; i++) {
            int at = batch.n_tokens++;
            batch.token[at] = 7 * (position + i + row) % VOCABULARY;
            batch.pos[at] = position + i;
            batch.n_seq_id[at] = 1;
            batch.seq_id[at][0] = row;
            batch.logits[at] = i == count - 1;
        }
    if (llama_decode(text.context, batch)) fail("llama_decode failed");
    llama_synchronize(text.context);
    llama_batch_free(batch);
}

struct Clock {
    std::chrono::steady_clock::time_point wall = std::chrono::steady_clock::now();
    std::clock_t cpu = std::clock();

    void print(int turns) const {
        double cpu_seconds = double(std::clock() - cpu) / CLOCKS_PER_SEC;
        std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - wall;
        std::cout << cpu_seconds / turns << " " << seconds.count() / turns << std::endl;
    }
};

static void run(Text & text, const std::string & phase, int threads) {
    llama_set_n_threads(text.context, threads, threads);
    clear(text);
    if (phase == "prefill") {
        Clock clock;
        decode(text, 0, PROMPT, 1);
        clock.print(1);
        return;
    }
    int rows = phase == "rows" ? ROWS : 1;
    decode(text, 0, SHORT, rows);
    Clock clock;
    for (int step = 0; step < STEPS; step++) decode(text, SHORT + step, 1, rows);
    clock.print(STEPS);
}

#ifndef IK_LLAMA
static void encode(const std::string & file, const llama_model * text, int threads) {
    static std::map<std::string, mtmd_context *> towers;
    mtmd_context *& tower = towers[file + std::to_string(threads)];
    if (!tower) {
        mtmd_context_params params = mtmd_context_params_default();
        params.use_gpu = params.warmup = params.print_timings = false;
        params.n_threads = threads;
        tower = mtmd_init_from_file(file.c_str(), text, params);
        if (!tower) fail("no tower: " + file);
    }
    std::vector<unsigned char> pixels(3 * SIDE * SIDE);
    for (size_t i = 0; i < pixels.size(); i++) pixels[i] = i % 251;
    mtmd_bitmap * bitmap = mtmd_bitmap_init(SIDE, SIDE, pixels.data());
    mtmd_input_chunks * chunks = mtmd_input_chunks_init();
    mtmd_input_text input = {};
    input.text = mtmd_default_marker();
    input.text_len = std::string(input.text).size();
    const mtmd_bitmap * bitmaps[] = {bitmap};
    if (mtmd_tokenize(tower, chunks, &input, bitmaps, 1)) fail("no tokens for the picture");
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks); i++) {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(chunks, i);
        if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_IMAGE) continue;
        Clock clock;
        if (mtmd_encode_chunk(tower, chunk)) fail("the tower failed");
        clock.print(1);
    }
    mtmd_input_chunks_free(chunks);
    mtmd_bitmap_free(bitmap);
}
#endif

int main(int argc, char ** argv) {
    if (argc != 4) fail("usage: llama_layers PLUGIN|- 0|1 FOLDER");
    const std::string plugin = argv[1], folder = argv[3];
    llama_log_set(quiet, nullptr);
#ifndef IK_LLAMA
    mtmd_log_set(quiet, nullptr);
    if (plugin != "-" && !ggml_backend_load(plugin.c_str())) fail("this CPU can't run " + plugin);
#endif
    llama_backend_init();
    std::map<std::string, Text> texts;
    auto text = [&](const std::string & layers) -> Text & {
        auto found = texts.find(layers);
        if (found == texts.end())
            found = texts.emplace(layers, load(folder + "/" + layers + ".gguf", argv[2][0] == '1')).first;
        return found->second;
    };
    std::string phase, layers;
    int threads;
    std::cout << "ready" << std::endl;
    while (std::cin >> phase >> layers >> threads) {
        if (phase != "encode") {
            run(text(layers), phase, threads);
            continue;
        }
#ifdef IK_LLAMA
        fail("ik_llama.cpp is not asked for a tower");
#else
        encode(folder + "/tower" + layers + ".gguf", text("1").model, threads);
#endif
    }
}
